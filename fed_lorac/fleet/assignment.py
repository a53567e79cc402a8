"""Assignment: a fleet from its settings and a data set. Knows settings and pools of images; not rounds, never tensors.

Where a data set's cameras have images of their own, camera i has the i-th's, of which `images` and `eval_images` keep
the latest, and weather alone is assigned. Else two assignments, each
from a stream of its own, so that one never moves another:

- images: a pool (the fleet's, or the evaluation's) is shuffled once and `images` a camera are taken off its head;
  flwr-datasets' partitioners split those to adapt on. No index is assigned twice and the two pools share none, so no
  image that any camera trains on is evaluated anywhere. Evaluation images are assigned in equal parts whatever the
  label skew, so that accuracies are of the same images at every skew.
- images, where cameras may share them (`fleet.deal = "overlapping"`): each draws its own from either pool, and is made
  when it is asked for (`overlapping`).
- weather: with C corruptions and S severities, camera i has corruption i mod C and severity (i div C) mod S, so every
  corruption meets every severity once in C * S cameras; links and speeds go round robin, i mod L, or links are drawn,
  each camera's from a stream of its own. A camera whose corruption is "none" has severity 0: images as they are.
"""

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fed_lorac.config import Dirichlet, FleetConfig, Front, LimitedDevices
from fed_lorac.errors import ConfigError
from fed_lorac.fleet.fleet import AS_IT_IS, CLEAR, Camera, Climate, Fleet, Indices
from fed_lorac.fleet.overlapping import CamerasOnDemand, OverlappingPool
from fed_lorac.fleet.pools import ImagePools, check_disjoint, label_mix
from fed_lorac.fleet.validation import set_apart
from fed_lorac.runtime.source import source_of
from fed_lorac.seeds import stream

__all__ = ["build_fleet"]

Remember = Callable[[str, Callable[[], dict[str, Indices]]], Mapping[str, Indices]]


def build_fleet(
    config: FleetConfig, data: ImagePools, seed: int, remember: Remember = lambda key, build: build()
) -> Fleet:
    """The fleet that `config` and `seed` describe; the same on every process.

    `remember` may answer a key from an earlier time instead of building anew: the libraries that assign images take two
    seconds to import.

    Raises `ConfigError` where there are too few images for the cameras asked for, or settings that do not fit cameras
    with images of their own; `DataError` where the pools overlap.
    """
    check_disjoint(data)
    weathers, levels = config.corruption_names, config.severity_levels
    limits = config.table(LimitedDevices)
    speeds, names, places = limits.speed_factors, list(links := config.links()), _link_places(config, seed)

    def camera(i: int, train: Indices, evaluation: Indices, name: str = "") -> Camera:
        return Camera(
            id=i,
            corruption=weathers[i % len(weathers)],
            severity=CLEAR if weathers[i % len(weathers)] == AS_IT_IS else levels[i // len(weathers) % len(levels)],
            train=train,
            evaluation=evaluation,
            label_mix=label_mix(data, train),
            link=names[places[i]],
            speed=speeds[i % len(speeds)],
            name=name,
        )

    return Fleet(
        _overlapping(config, data, seed, camera)
        if _overlaps(config)
        else _disjoint(config, data, seed, remember, camera),
        config.per_round,
        seed,
        limits.availability,
        limits.dropout,
        Climate(config.schedule, *_pace(config), weathers, max(levels), seed),
        links,
        limits.compute_watt,
        _overlaps(config),
        len(weathers) * len(levels),
        places,
        ~np.array(config.training_cameras) if config.held_out else None,
    )


_Make = Callable[..., Camera]
"""Number, images to adapt on, images to be measured on and name -> the camera."""


def _overlaps(config: FleetConfig) -> bool:
    return config.deal == "overlapping"


def _disjoint(config: FleetConfig, data: ImagePools, seed: int, remember: Remember, make: _Make) -> tuple[Camera, ...]:
    names, train, evaluation = _own(config, data) if data.cameras else _assigned(config, data, seed, remember)
    if config.validation_share:
        train, evaluation = set_apart(train, data.labels, config.validation_share, data.cameras)
    return tuple(make(i, train[i], evaluation[i], names[i]) for i in range(config.cameras))


def _overlapping(config: FleetConfig, data: ImagePools, seed: int, make: _Make) -> CamerasOnDemand:
    if data.cameras:
        raise ConfigError(
            f"Cameras with images of their own have those that they took; {data.name} has such cameras, got "
            'fleet.deal = "overlapping". Set it to "disjoint".'
        )
    _check_order(config, data)
    adapt = OverlappingPool(data.fleet, config.images, seed, "train", "fleet.images", f"fleet's pool of {data.name}")
    where = f"evaluation pool of {data.name}"
    measure = OverlappingPool(data.evaluation, config.eval_images, seed, "evaluation", "fleet.eval_images", where)
    alpha = config.table(Dirichlet).alpha

    def camera(i: int) -> Camera:
        own = adapt.drawn(i) if config.label_skew == "iid" else adapt.skewed(i, data.labels, alpha)
        return make(i, own, measure.drawn(i))

    return CamerasOnDemand(config.cameras, camera)


class _Given(NamedTuple):
    """Of each camera its name, and its images to adapt on and to be measured on."""

    names: Sequence[str]
    train: Sequence[Indices]
    evaluation: Sequence[Indices]


def _own(config: FleetConfig, data: ImagePools) -> _Given:
    """What the data set's own cameras took, the first `fleet.cameras` of them."""
    if config.cameras > len(data.cameras):
        raise ConfigError(
            f"Cameras have the images that they took; {data.name} has {len(data.cameras)} cameras, got fleet.cameras = "
            f"{config.cameras}. Set fleet.cameras to {len(data.cameras)} or fewer, and fleet.per_round with it."
        )
    if config.label_skew != "iid":
        raise ConfigError(
            f"Cameras with images of their own have the classes that they saw; {data.name} has such cameras, got "
            f'fleet.label_skew = "{config.label_skew}". Leave it at "iid".'
        )
    own = data.cameras[: config.cameras]
    train = [np.array(one.train[-config.images :]) for one in own]  # -0: all
    return _Given([one.camera for one in own], train, [np.array(one.evaluation[-config.eval_images :]) for one in own])


def _assigned(config: FleetConfig, data: ImagePools, seed: int, remember: Remember) -> _Given:
    _check_order(config, data)
    train, evaluation = _assign_train(config, data, seed, remember), _assign_evaluation(config, data, seed)
    return _Given([""] * config.cameras, train, evaluation)


def _check_order(config: FleetConfig, data: ImagePools) -> None:
    if config.stream == "time":
        raise ConfigError(
            f"Images can come in time order only if the data set says who took them when; {data.name} does not, got "
            'fleet.stream = "time". Set it to "iid" or "correlated".'
        )


def _pace(config: FleetConfig) -> tuple[int, float]:
    """The schedule's period and lag, in rounds."""
    own = config.tables.get(config.schedule, {})
    return int(own.get("period", Front.period)), float(own.get("lag", Front.lag))


def _link_places(config: FleetConfig, seed: int) -> Indices:
    """Each camera's link, as its place among the fleet's."""
    named = list(dict.fromkeys(config.link_names))
    links, cameras = np.array([named.index(name) for name in config.link_names]), np.arange(config.cameras)
    if config.link_assignment == "round_robin":
        return links[cameras % len(links)]
    if _overlaps(config):  # one stream for all: a million of them take half a minute to make
        return links[stream(seed, "link").integers(len(links), size=len(cameras))]
    return links[[int(stream(seed, "link", int(camera)).integers(len(links))) for camera in cameras]]


def _assign_train(config: FleetConfig, data: ImagePools, seed: int, remember: Remember) -> list[Indices]:
    ask = _Ask(config.cameras, config.images, "fleet.images", f"fleet's pool of {data.name}")
    taken = _take(data.fleet, ask, stream(seed, "fleet", "train"))
    labels = data.labels[taken]

    def assign() -> dict[str, Indices]:
        if config.label_skew == "iid":
            parts = _assign_iid(taken, labels, config.cameras)
        else:
            parts = _assign_dirichlet(taken, labels, config, int(stream(seed, "fleet", "dirichlet").integers(2**63)))
        return {"assigned": np.concatenate(parts), "ends": np.cumsum([len(part) for part in parts])}

    pool = hashlib.sha256(taken.tobytes() + labels.tobytes()).hexdigest()
    how = (
        config.cameras,
        config.label_skew,
        config.table(Dirichlet).alpha,
        seed,
        np.__version__,
        version("flwr-datasets"),
    )
    found = remember(f"assignments of images to cameras; {how} {pool} {source_of(__name__, 'fed_lorac.seeds')}", assign)
    return [np.array(part) for part in np.split(found["assigned"], found["ends"][:-1])]


def _assign_evaluation(config: FleetConfig, data: ImagePools, seed: int) -> list[Indices]:
    ask = _Ask(config.cameras, config.eval_images, "fleet.eval_images", f"evaluation pool of {data.name}")
    taken = _take(data.evaluation, ask, stream(seed, "fleet", "evaluation"))
    return [np.sort(part) for part in np.array_split(taken, config.cameras)]  # no skew here: equal parts


@dataclass(frozen=True)
class _Ask:
    """So many images (0: all there are) for each of so many cameras, by which setting, and from where."""

    cameras: int
    images: int
    key: str
    where: str


def _take(pool: Indices, ask: _Ask, rng: np.random.Generator) -> Indices:
    """The pool shuffled, and as many off its head as are asked for; one camera more leaves the others' in place."""
    share, needed = len(pool) // ask.cameras, max(ask.images, 1)
    if share < needed:
        remedies = [f"{ask.key} to {share} or less (0: all images)"] * (share > 0)
        remedies += [f"fleet.cameras to {len(pool) // needed} or fewer"] * (len(pool) >= needed)
        remedies += ['fleet.deal to "overlapping" with fleet.images above 0'] * (len(pool) >= needed)
        raise ConfigError(
            f"Cameras share no image, each has at least one; got {ask.cameras} cameras with {ask.key} = {ask.images}. "
            f"That takes {ask.cameras * needed}, and the {ask.where} holds {len(pool)}. "
            f"Set {', or '.join(remedies) or 'data.name to a larger data set'}."
        )
    return rng.permutation(pool)[: ask.images * ask.cameras or None]


def _assign_iid(taken: Indices, labels: NDArray[np.int64], cameras: int) -> list[Indices]:
    # flwr-datasets and all it pulls in take two seconds to import, and a millisecond a camera to split.
    from flwr_datasets.partitioner import IidPartitioner  # noqa: PLC0415

    # IidPartitioner cuts in order: it is the shuffle in `_take` that makes this iid.
    return _split(taken, labels, IidPartitioner(cameras), cameras)


def _assign_dirichlet(taken: Indices, labels: NDArray[np.int64], config: FleetConfig, seed: int) -> list[Indices]:
    from flwr_datasets.partitioner import DirichletPartitioner  # noqa: PLC0415

    alpha = config.table(Dirichlet).alpha
    partitioner = DirichletPartitioner(config.cameras, "label", alpha, min_partition_size=1, seed=seed)
    try:
        with warnings.catch_warnings():  # one a redraw; what counts is whether it ends well
            warnings.simplefilter("ignore")
            return _split(taken, labels, partitioner, config.cameras)
    except ValueError as error:
        raise ConfigError(
            f"Every camera has at least one image; fleet.dirichlet.alpha = {alpha:g} left some of "
            f"{config.cameras} cameras without any of {len(taken)} images, in each of eleven draws. "
            f"Raise fleet.dirichlet.alpha, lower fleet.cameras, or take another run.seed."
        ) from error


def _split(taken: Indices, labels: NDArray[np.int64], partitioner: Any, cameras: int) -> list[Indices]:
    """`taken` split by one of flwr-datasets' partitioners, whose rows stand for images; each part ascending."""
    from datasets import Dataset  # noqa: PLC0415

    partitioner.dataset = Dataset.from_dict({"index": taken, "label": labels})
    parts = (partitioner.load_partition(i)["index"] for i in range(cameras))
    return [np.sort(np.asarray(part, dtype=np.int64)) for part in parts]
