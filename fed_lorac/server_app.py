"""The Flower ServerApp: the composition root, where config, site, strategy, grid and record meet."""

import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from flwr.app import ConfigRecord, Context, MessageType
from flwr.serverapp import Grid, ServerApp
from torch import Tensor

from fed_lorac.camera import Memory, fold, statistics_of, uplink_template
from fed_lorac.config import Config
from fed_lorac.ledger import Row, read_rows
from fed_lorac.record import RunFolder
from fed_lorac.results import adapter_state, model_state, summary
from fed_lorac.rounds import FullMessages, Measured, Watch, measure_base, roll_call, run_round, write_rows
from fed_lorac.running import shapes_of
from fed_lorac.site import Site, site_of
from fed_lorac.wire.codec import encode
from fed_lorac.wire.meter import full_message, reply_records
from strategies.base import FrameStrategy
from strategies.factors import FactorFedAvg
from strategies.full import FullFedAvg
from strategies.merged import MergedFedAvg
from strategies.outbox import Outbox, Update

__all__ = ["STRATEGIES", "app", "conduct", "make_server_app", "strategy_of"]

STRATEGIES: dict[str, Callable[..., FrameStrategy]] = {
    "merged": MergedFedAvg,
    "factors": FactorFedAvg,
    "full": FullFedAvg,
}
"""strategy.name -> its class."""


def strategy_of(site: Site, roster: Mapping[int, int] | None = None) -> FrameStrategy:
    """The strategy that the config names, for this site's base and fleet."""
    config = site.config
    own = {"downlink": config.strategy.downlink, "svd_rank": config.strategy.svd_rank}
    return STRATEGIES[config.strategy.name](
        base=site.base.fingerprint,
        shapes=shapes_of(site.base.model),
        template=uplink_template(site),
        scale=site.adapter.scale,
        dtype=config.codec.down,
        quorum=config.quorum_cameras,
        roster=roster,
        draw=site.fleet.drawn,
        **(own if config.strategy.name == "merged" else {}),
    )


def full_messages(site: Site) -> FullMessages:
    """Build and weigh, once, what full fine-tuning of the same model would send and be sent."""
    tensors = {name: p.detach() for name, p in site.base.model.named_parameters()}
    if site.config.batch_norm.mode == "shared":
        tensors |= statistics_of(site.base.model)
    told = ConfigRecord({"measure": True, "statistics": False, "server-round": 1})
    examples = max(len(camera.train) for camera in site.fleet.cameras)
    up = full_message(tensors, site.config.codec.up, reply_records(examples), reply=True)
    # Put together as the strategy does it, so that the two arms differ in the frame alone.
    update = Outbox([Update(1, encode(tensors, dtype=site.config.codec.down, base=""))])
    down = update.parcels([0], told, MessageType.EVALUATE)[0].weight
    ask = Outbox().parcels([0], ConfigRecord({"server-round": 1}), MessageType.TRAIN)[0].weight
    return FullMessages(up.message_bytes, down.message_bytes, ask.message_bytes)


def make_server_app(config: Config | None = None, out: Path | None = None, watch: Watch | None = None) -> ServerApp:
    """The ServerApp of a config; without one, of the run-config that comes with the context."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        """Run all rounds and leave a run's folder."""
        asked = config or Config.from_flat(context.run_config)
        folder = out or out_folder(asked, "flwr")
        found = conduct(grid, asked, folder, watch or LogWatch())
        logging.getLogger("flwr").info("%s\nThe run is in %s", json.dumps(found, indent=2), folder.absolute())

    return app


def out_folder(config: Config, name: str) -> Path:
    """`run.out`, or a new folder under `runs/` with the name and the time."""
    return Path(config.run.out) if config.run.out else Path("runs", f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}")


class LogWatch(Watch):
    """Says in Flower's log what each round found."""

    def round(self, row: Row, of: int) -> None:
        """One line a round."""
        logging.getLogger("flwr").info(
            "round %d of %d: accuracy %s, %d cameras counted, %d left out, %d bytes up, %d down",
            row["round"],
            of,
            "not measured" if row["accuracy"] is None else f"{row['accuracy']:.4f}",
            row["cameras_counted"],
            row["cameras_left_out"],
            row["uplink_message_bytes"],
            row["downlink_message_bytes"],
        )


def conduct(grid: Grid, config: Config, out: Path, watch: Watch) -> dict[str, Any]:
    """Run all rounds over any grid, write the run's folder, return its summary.

    Ctrl-C ends the run after the rows that are already written: the results are those of the rounds that were finished.
    """
    site, folder = site_of(config), RunFolder.create(out, config)
    source, zero_byte, adapted = Measured(), Measured(), Measured()
    strategy, interrupted = strategy_of(site), False
    try:
        strategy.roster = roll_call(grid, config.fleet.cameras)
        source, zero_byte = measure_base(grid, strategy, watch, config.run.round_timeout_s)
        full, rounds = full_messages(site), config.run.rounds
        for number in range(1, rounds + 1):
            last = number == rounds
            measure = last or number % config.run.evaluate_every == 0
            result, seconds = run_round(
                grid, strategy, number, measure=measure, last=last, timeout=config.run.round_timeout_s, watch=watch
            )
            row = write_rows(folder.ledger, strategy.report, site.fleet, full, result, seconds)
            adapted = result if measure else adapted
            watch.round(row, rounds)
    except KeyboardInterrupt:
        interrupted = True
    rows = read_rows(folder.path / "rounds.jsonl").rows
    found = summary(site, rows, source, zero_byte, adapted, interrupted=interrupted)
    _finish(folder, site, strategy, found)
    if interrupted:
        raise KeyboardInterrupt
    return found


def _finish(folder: RunFolder, site: Site, strategy: FrameStrategy, found: Mapping[str, Any]) -> None:
    memory = Memory()
    # An interrupted round may have made its update already, but has no row: it never was.
    updates = [update for update in strategy.updates if update.round <= found["rounds"]]
    fold(site, memory, [(update.round, update.frame) for update in updates])
    metadata = {
        "base": site.base.fingerprint,
        "folded_round": str(memory.folded_round),
        "method": site.config.adapter.method,
        "data": site.data.name,
        "seed": str(site.config.run.seed),
    }
    folder.finish(
        found,
        adapter=adapter_state(site, memory, updates),
        model=model_state(site, memory),
        cameras=_statistics(strategy),
        metadata=metadata,
    )


def _statistics(strategy: FrameStrategy) -> dict[str, Tensor]:
    """`camera-<id>.<batch norm>.running_mean` and so on, as the cameras sent them with the last evaluation."""
    return {
        f"camera-{camera}.{name}": torch.from_numpy(array.numpy())
        for camera, content in strategy.evaluations.items()
        for record in content.array_records.values()
        for name, array in record.items()
    }


app = make_server_app()
