"""A whole run over any Flower Grid: the base is measured, rounds are run, the folder is written, and a run resumes
after a kill. Knows strategies, rounds, records and checkpoints; not apps or workers."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from flwr.app import RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from fed_lorac.adapters.settled import NOTHING, Settled
from fed_lorac.aggregation.delta_sum import Sums
from fed_lorac.client.base_scores import base_scores, keep_scores
from fed_lorac.client.shapes import one_after_another
from fed_lorac.client.state import ClientState, GlobalModel, fold_updates
from fed_lorac.config import Config, FleetEngine, LimitedDevices, check_unchanged
from fed_lorac.data.progress import at
from fed_lorac.experiment.adapters import settled_on
from fed_lorac.experiment.base_model import tell_notes
from fed_lorac.experiment.build import build_experiment
from fed_lorac.experiment.experiment import Experiment, compute_s
from fed_lorac.fleet.clock import Clock
from fed_lorac.records.checkpoint import Checkpoint
from fed_lorac.records.ledger import CAMERAS_FILE, ROUNDS_FILE, each_row, read_rows
from fed_lorac.records.measured import Measured
from fed_lorac.records.run_folder import RunFolder
from fed_lorac.reporting.logs.several import logged
from fed_lorac.reporting.summary import adapter_state, model_state, own_state, summary
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.versions import versions
from fed_lorac.server.fleet_strategy import FleetStrategy, Update
from fed_lorac.simulation.build_strategy import reference_of, strategy_of
from fed_lorac.simulation.identity import check_same, identity_of, metadata_of
from fed_lorac.simulation.rates import far_rate
from fed_lorac.simulation.resume import HEARD, Memories, check_rounds, packed_tensors, unpacked_tensors
from fed_lorac.simulation.round import (
    check_anyone_trained,
    check_not_misset,
    measure_base,
    measured_base,
    roll_call,
    run_round,
)
from fed_lorac.simulation.rows import write_rows
from fed_lorac.simulation.waste import wasteful

__all__ = ["run_rounds"]


@dataclass
class _Progress:
    """How far a run has come: its rows, what no update holds by then, its nodes' states, and what it last measured."""

    round: int = 0
    rows: Mapping[str, int] = field(default_factory=lambda: {"rounds": 0, "cameras": 0})  # where they end
    not_in_updates: Sums = field(default_factory=dict)
    states: Mapping[int, RecordDict] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)
    settled: Settled = NOTHING
    measured: Mapping[str, Measured] = field(
        default_factory=lambda: {arm: Measured() for arm in ("source", "zero_byte", "adapted")}
    )


def run_rounds(
    grid: Grid, config: Config, folder: RunFolder, watch: Watch, *, memories: Memories | None = None
) -> dict[str, Any]:
    """Run all rounds over any grid, write the run's folder, return its summary.

    With `memories` every `run.fleet.checkpoint_every` rounds leave a checkpoint, and a folder that `resumes` goes on
    from its newest. Ctrl-C ends the run after the rows that are already written: the results are those of the rounds
    that were finished.

    Raises:
        RunError: the run cannot begin or go on, or no camera took part in any round.
    """
    with logged(config, folder.path, watch, goes_on=folder.resumes) as told:
        run = _Run(grid, config, folder, told, memories)
        run.begin()
        interrupted = False
        try:
            while run.progress.round < config.run.rounds:
                run.round()
        except KeyboardInterrupt:
            interrupted = True
        found = run.finish(interrupted=interrupted)
        told.ended(found)
    if interrupted:
        raise KeyboardInterrupt
    return found


class _Run:
    """One run as it goes."""

    def __init__(self, grid: Grid, config: Config, folder: RunFolder, watch: Watch, memories: Memories | None) -> None:
        self._grid, self._config, self._folder, self._watch, self._memories = grid, config, folder, watch, memories
        self._experiment: Experiment = build_experiment(config)
        tell_notes(self._experiment.base)
        fleet, round_s = self._experiment.fleet, config.fleet.table(LimitedDevices).round_s
        self._clock = Clock(fleet.cameras, fleet.links, compute_s(self._experiment), round_s)
        self._strategy: FleetStrategy = strategy_of(self._experiment, clock=self._clock, together=memories is not None)
        self._full = reference_of(self._experiment)
        self._identity = identity_of(self._experiment)  # it stays, and reading it off takes a network
        self.progress = _Progress()
        self._asked_before: list[int] = []  # numbers of rounds that its learning rate fell over before
        self._warnings: list[str] | None = None  # once there is an update to look at

    def begin(self) -> None:
        """Find all cameras; then resume from the newest checkpoint, or measure the base."""
        audience = self._strategy.rules.audience
        if audience is None or self._memories is None:
            self._strategy.roster = roll_call(self._grid, self._config.fleet.cameras)
        else:
            self._strategy.roster = self._memories.roster
            if self._strategy.bills:  # else there is nothing to fold
                self._memories.listen(audience.get)
        kept = self._folder.newest_checkpoint() if self._folder.resumes else None
        if kept is not None:
            self._restore(kept)
            self._folder.write_config(self._config)
            self._watch.resumed(kept.round)
            return
        if self._folder.resumes:
            self._folder.write_config(self._config)
        self._folder.ledger.cut({"rounds": 0, "cameras": 0})
        timeout = self._config.run.round_timeout_s
        source, zero_byte = base_scores(
            self._experiment, lambda: measure_base(self._grid, self._strategy, self._watch, timeout)
        )
        if self._strategy.rules.audience is None:
            self._strategy.confirmed.update(dict.fromkeys(sorted(self._strategy.roster.values()), 0))  # measured or not
        self.progress.measured = {**self.progress.measured, "source": source, "zero_byte": zero_byte}
        self._save()

    def round(self) -> None:
        """One round, its rows, its checkpoint."""
        run, number = self._config.run, self.progress.round + 1
        last = number == run.rounds
        measure = last or number % run.evaluate_every == 0
        asked: dict[str, Any] = {"measure": measure, "last": last, "timeout": run.round_timeout_s, "watch": self._watch}
        found, seconds = run_round(self._grid, self._strategy, number, **asked)
        if self._memories is not None and self._strategy.rules.audience is not None:  # whoever lost its message
            self._memories.fold([(update.round, update.frame) for update in self._strategy.updates[-1:]])
        ledger, report = self._folder.ledger, self._strategy.report
        measured = {**self.progress.measured}
        if measure:
            measured["adapted"] = found
        if measure and self._experiment.fleet.changing:
            measured["source"], measured["zero_byte"] = scores = measured_base(self._strategy)
            keep_scores(self._experiment, number, scores)
        base = {arm: measured[arm] for arm in ("source", "zero_byte") if measure}
        self._folder.lock.check()
        row = write_rows(ledger, report, self._experiment.fleet, self._full, found, seconds, clock=self._clock, **base)
        if number == 1:
            check_not_misset(row)
        self._mark_done(number, measured)
        every = run.table(FleetEngine).checkpoint_every
        if last or (every and number % every == 0):
            self._save()
        self._watch.round(row, run.rounds)
        self._warn_once()

    def _mark_done(self, round: int, measured: Mapping[str, Measured]) -> None:
        """Note that the round is done, all at once: results are as of this round, whatever one after it changes that is
        interrupted."""
        strategy = self._strategy
        if self._memories is None:  # as sent with the last evaluation
            states = {node: strategy.evaluations.get(k, RecordDict()) for node, k in strategy.roster.items()}
        else:
            states = dict(self._memories.states())
        cameras = () if strategy.rules.audience else sorted(strategy.roster.values())
        groups = {str(k): group for k in cameras if (group := strategy.cluster_of(k)) is not None}
        rows, kept = self._folder.ledger.ends(), strategy.not_in_updates()
        self.progress = _Progress(round, rows, kept, states, groups, strategy.settled, measured)

    def _warn_once(self) -> None:
        """Warn, once there is an update, where it takes more bytes than another downlink would, where cameras cannot
        train side by side, and where the learning rate is far from what a search found."""
        updates = self._strategy.updates[self._strategy.settled != NOTHING :]  # the first of those only settles
        if self._warnings is None and updates:
            found = wasteful(self._settled, updates[0]), one_after_another(self._settled), far_rate(self._settled)
            self._warnings = [text for text in found if text]
            for text in self._warnings:
                logging.getLogger(__name__).warning("%s", text)

    @property
    def _settled(self) -> Experiment:
        """The experiment as the server has settled it, where it does."""
        return settled_on(self._experiment, self.progress.settled)

    def finish(self, *, interrupted: bool) -> dict[str, Any]:
        """Write the results of the rounds that have rows; return the summary."""
        at("writing the results")
        self._folder.ledger.cut(self.progress.rows)
        rows = read_rows(self._folder.path / ROUNDS_FILE).rows
        if not interrupted:
            check_anyone_trained(rows)
        self._warn_once()
        sent = each_row(self._folder.path / CAMERAS_FILE)
        about: dict[str, Any] = {**self.progress.measured, "groups": self.progress.groups}
        about |= {"interrupted": interrupted, "remarks": self._warnings or ()}
        found = summary(self._settled, rows, sent, self._full, **about)
        if self._asked_before:
            found["rounds_asked_before"] = self._asked_before
        # An interrupted round may have made its update already, but has no row: it never was.
        updates = [update for update in self._strategy.updates if update.round <= found["rounds"]]
        frames = [(update.round, update.frame) for update in updates]
        global_model = fold_updates(self._experiment, GlobalModel(), frames)
        self._folder.finish(
            found,
            adapter=adapter_state(self._settled, global_model, updates, self.progress.not_in_updates),
            model=model_state(self._settled, global_model, self.progress.not_in_updates),
            cameras=self._of_cameras(),
            metadata=metadata_of(self._experiment, global_model.round),
        )
        return found

    def _of_cameras(self) -> dict[str, Tensor]:
        """What is each camera's own.

        `camera-<id>.<batch norm>.running_mean` and so on; and `own-<n>.<tensor>`, a delta of the model, which belongs
        to the cameras whose `own.camera-<id>` is n.
        """
        roster = self._strategy.roster
        states = self.progress.states.items()
        cameras = {roster[node]: ClientState.read(state) for node, state in states if node in roster}
        found = {
            f"camera-{camera}.{name}": value
            for camera, state in cameras.items()
            for name, value in state.statistics.items()
        }
        return found | self._own_parts(dict(sorted(cameras.items())))

    def _own_parts(self, cameras: Mapping[int, ClientState]) -> dict[str, Tensor]:
        """The delta of each camera's own, kept once for cameras that have the same frames."""
        frames = {k: (state.personal_frame, state.parts_frame) for k, state in cameras.items()}
        places = {its: place for place, its in enumerate(dict.fromkeys(filter(any, frames.values())))}
        found = {f"own.camera-{k}": torch.tensor(places[its]) for k, its in frames.items() if any(its)}
        whose = {its: k for k, its in frames.items()}
        for its, place in places.items():
            delta = own_state(self._settled, cameras[whose[its]], self.progress.not_in_updates)
            found |= {f"own-{place}.{name}": tensor for name, tensor in delta.items()}
        return found

    def _save(self) -> None:
        """Leave a checkpoint, where nodes can be saved and it was asked for."""
        if self._memories is None or not self._config.run.table(FleetEngine).checkpoint_every:
            return
        strategy = self._strategy
        facts = {
            "versions": versions(),
            "identity": self._identity,
            "config": self._config.to_flat(),  # every random stream is a function of its seed and its own names
            "ledger": self._folder.ledger.position(),
            "clock": self._clock.state(),
            "confirmed": strategy.confirmed,
            "notes": strategy.notes,
            "asked_before": self._asked_before,
            "measured": {arm: vars(measured) for arm, measured in self.progress.measured.items()},
        }
        tensors = packed_tensors(self._memories.states(), strategy.sums)
        if (audience := strategy.rules.audience) is not None:
            tensors[HEARD] = torch.from_numpy(audience.heard)
        updates = {update.round: update.frame for update in strategy.updates}
        self._folder.checkpoints.write(Checkpoint(self.progress.round, facts, tensors, updates))

    def _restore(self, kept: Checkpoint) -> None:
        if self._memories is None:
            raise AssertionError("only a grid whose nodes can be saved has checkpoints")
        check_same(kept.facts.get("identity", {}), self._identity)
        check_unchanged(kept.facts["config"], self._config)
        then = kept.facts["config"]["run.rounds"]
        self._asked_before = [*kept.facts.get("asked_before", ())]
        self._asked_before += [then] * check_rounds(self._config, kept.round, then)
        if (then := kept.facts["versions"]) != versions():
            changed = sorted(name for name, version in versions().items() if then.get(name) != version)
            logging.getLogger(__name__).warning(
                "The run began under other versions of %s: the rest may differ in the last bits.", ", ".join(changed)
            )
        self._folder.ledger.cut(kept.facts["ledger"])
        self._clock.restore(**kept.facts.get("clock", {}))
        measured = {}
        for arm, values in kept.facts["measured"].items():
            by_camera = {kind: {int(camera): v for camera, v in its.items()} for kind, its in values.items()}
            measured[arm] = Measured(**by_camera)
        updates = sorted(kept.updates.items())
        states, sums = unpacked_tensors(kept.tensors)
        if (audience := self._strategy.rules.audience) is not None:
            audience.restore(kept.tensors[HEARD].numpy())
        self._memories.restore(states, updates)
        confirmed = {int(camera): round for camera, round in kept.facts["confirmed"].items()}
        notes = kept.facts["notes"]
        self._strategy.resume([Update(*update) for update in updates], confirmed, sums, notes)
        self._mark_done(kept.round, measured)
