"""Laws of hearing together: each camera has heard what it would have heard alone, and all are counted once."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_lorac.fleet.fleet import Picked
from fed_lorac.server.audience import Audience
from fed_lorac.server.registration import Numbered

CAMERAS = 9
some = st.sets(st.integers(0, CAMERAS - 1))


@settings(max_examples=60)
@given(rounds=st.lists(st.tuples(some, some, st.booleans()), max_size=8), seed=st.integers(0, 9))
def test_an_audience_hears_what_its_cameras_would_hear_one_by_one(
    rounds: list[tuple[set[int], set[int], bool]], seed: int
) -> None:
    places = np.random.default_rng(seed).integers(2, size=CAMERAS)
    audience, alone = Audience(["a", "b"], places), dict.fromkeys(range(CAMERAS), 0)
    for round, (away, apart, as_mask) in enumerate(rounds, 1):
        told: Counter[tuple[str, int]] = Counter()
        for camera in set(range(CAMERAS)) - away - apart:
            if alone[camera] < round:
                told["ab"[places[camera]], alone[camera]] += 1
                alone[camera] = round
        mask = np.isin(np.arange(CAMERAS), list(away))
        found = list(audience.tell(round, Picked(mask) if as_mask else away, apart))
        assert {(one.link, one.heard): len(one.cameras) for one in found} == told
        assert all("ab"[places[camera]] == one.link for one in found for camera in one.cameras)
        for camera in apart - away:  # each by a message of its own
            audience[camera] = alone[camera] = round
        assert audience.heard.tolist() == list(alone.values())


@given(first=st.integers(0, 9), count=st.integers(0, 9), by=st.integers(-9, 9))
def test_a_numbered_roster_is_the_mapping_that_it_stands_for(first: int, count: int, by: int) -> None:
    written = {first + k: first + k + by for k in range(count)}
    roster = Numbered(first, count, by)
    assert dict(roster) == written and dict(roster.inverse) == {camera: node for node, camera in written.items()}
    assert first + count not in roster and first - 1 not in roster and roster.get(first + count) is None
