"""The Flower ServerApp: `flwr run`'s way into a run. Knows Flower's context and log; the run itself is `run_rounds`."""

import json
import logging
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fed_lorac.config import Config
from fed_lorac.records.ledger import Row
from fed_lorac.records.run_folder import RunFolder, folder_for
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.run import run_rounds

__all__ = ["app", "make_server_app"]


def make_server_app(config: Config | None = None, out: Path | None = None, watch: Watch | None = None) -> ServerApp:
    """The ServerApp of a config; without one, of the run-config that comes with the context."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        """Run all rounds and leave a run's folder."""
        asked = config or Config.from_flat(context.run_config)
        with folder_for(asked, "flwr", out) as path, RunFolder.owned(path, asked) as folder:
            found = run_rounds(grid, asked, folder, watch or LogWatch())
        logging.getLogger("flwr").info("%s\nThe run is in %s", json.dumps(found, indent=2), folder.path)

    return app


class LogWatch(Watch):
    """Says in Flower's log what each round found."""

    def round(self, row: Row, of: int) -> None:
        """One line a round."""
        logging.getLogger("flwr").info(
            "round %d of %d: accuracy %s over %d cameras, %d cameras counted, %d left out, %d bytes up, %d down",
            row["round"],
            of,
            "not measured" if row["accuracy"] is None else f"{row['accuracy']:.4f}",
            row["cameras_measured"],
            row["cameras_counted"],
            row["cameras_left_out"],
            row["uplink_frame_bytes"],
            row["downlink_frame_bytes"],
        )


app = make_server_app()
