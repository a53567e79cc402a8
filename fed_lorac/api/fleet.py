"""A fleet before anything is run. Knows experiments; not rounds."""

import base64
from dataclasses import dataclass
from functools import cached_property
from html import escape
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from fed_lorac.config import Config, Overrides, Source, load_config
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.files import home_expanded, reserved, write_bytes

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image
    from rich.table import Table

    from fed_lorac.experiment.experiment import Experiment
    from fed_lorac.reporting.to_come import BytesToCome

__all__ = ["FleetView", "show_fleet"]


@dataclass(frozen=True, repr=False)
class FleetView:
    """Who is in a config's fleet, what it sees, and what it will send: worked out when it is looked at, and kept."""

    config: Config

    @cached_property
    def cameras(self) -> "pd.DataFrame":
        """A row a camera: weather, link, speed, images, commonest class, bytes of its reply in a round."""
        import pandas as pd  # noqa: PLC0415

        from fed_lorac.reporting.fleet_tables import camera_rows  # noqa: PLC0415

        return pd.DataFrame(camera_rows(self._experiment, self.messages))

    @cached_property
    def labels(self) -> "pd.DataFrame":
        """A row a camera, a column a class: its share of the camera's images to adapt on, 0 to 1."""
        import pandas as pd  # noqa: PLC0415

        return pd.DataFrame([camera.label_mix for camera in self._experiment.fleet.cameras])

    @cached_property
    def weather(self) -> "pd.DataFrame":
        """A row a camera, a column a round, from 1: its corruption and severity, "fog 3"; severity 0 is clear air."""
        import pandas as pd  # noqa: PLC0415

        fleet, rounds = self._experiment.fleet, range(1, self.config.run.rounds + 1)
        seen = [[fleet.weather(camera.id, round) for round in rounds] for camera in fleet.cameras]
        return pd.DataFrame([[f"{w.corruption} {w.severity}" for w in row] for row in seen], columns=list(rounds))

    @cached_property
    def messages(self) -> "BytesToCome | None":
        """The bytes that the run will send, and full fine-tuning's; None where layers are chosen while it runs."""
        from fed_lorac.simulation.forecast import bytes_to_come  # noqa: PLC0415

        return bytes_to_come(self._experiment)

    def picture(self, cameras: int = 24, images: int = 8) -> "Image":
        """A contact sheet: what the first `cameras` see, a row each."""
        from fed_lorac.reporting.contact_sheet import contact_sheet  # noqa: PLC0415

        return contact_sheet(self._experiment, cameras, images)

    def save_picture(
        self, path: str | PathLike[str], *, cameras: int = 24, images: int = 8, overwrite: bool = False
    ) -> Path:
        """Write the contact sheet as a PNG file, with its description inside; its folder is made where there is none.

        Raises:
            ConfigError: the file does not end in .png.
            RunError: it is there already, or cannot be written: found before anything is drawn.
        """
        file = home_expanded(Path(path))
        if file.suffix.lower() != ".png":
            raise ConfigError(f"A contact sheet is written as .png; got {file}. Change its ending.")
        with reserved(file, 0, overwrite=overwrite):
            return write_bytes(file, self._png(cameras, images))

    def table(self, cameras: int = 24) -> "Table":
        """The first cameras, for the terminal."""
        from fed_lorac.reporting.fleet_tables import fleet_table  # noqa: PLC0415

        return fleet_table(self.cameras.head(cameras).to_dict("records"), self._experiment)

    def lines(self) -> list[str]:
        """What the run will be and send, in words."""
        from fed_lorac.reporting.to_come import in_words  # noqa: PLC0415

        of, rounds = self.config.fleet, self.config.run.rounds
        return list(in_words(self.messages, rounds=rounds, cameras=of.cameras, per_round=of.per_round))

    @cached_property
    def _experiment(self) -> "Experiment":
        # PyTorch and images
        from fed_lorac.experiment.build import build_experiment, forget_experiments, without_weights  # noqa: PLC0415

        forget_experiments()
        return build_experiment(without_weights(self.config))

    def _png(self, cameras: int, images: int) -> bytes:
        from PIL.PngImagePlugin import PngInfo  # noqa: PLC0415

        from fed_lorac.reporting.contact_sheet import alternative  # noqa: PLC0415

        said, file = PngInfo(), BytesIO()
        said.add_text("Description", alternative(self._experiment, cameras))
        self.picture(cameras, images).save(file, "PNG", pnginfo=said)
        return file.getvalue()

    def __repr__(self) -> str:
        return f"<Fleet of {self.config.fleet.cameras} cameras: {' '.join(self.lines())}>"

    def _repr_html_(self) -> str:
        """The cameras, what they see and what they will send, for a notebook."""
        from fed_lorac.reporting.contact_sheet import alternative  # noqa: PLC0415

        words = "".join(f"<p>{escape(line)}</p>" for line in self.lines())
        data = base64.b64encode(self._png(24, 8)).decode()
        image = f'<img alt="{escape(alternative(self._experiment))}" src="data:image/png;base64,{data}"/>'
        return f"{self.cameras.to_html(index=False, max_rows=24)}{words}{image}"


def show_fleet(source: Source = None, overrides: Overrides = ()) -> FleetView:
    """The fleet of a config before anything is run: who is in it, what cameras see, and what they will send.

        fleet = fl.show_fleet("quickstart", {"fleet.corruptions": ["fog", "snow"]})
        fleet.cameras, fleet.labels, fleet.weather  # data frames
        fleet.save_picture("fleet.png")

    Args:
        source: a shipped name, a TOML file, settings as a mapping, or a `Config`; None: the quick start.
        overrides: settings on top: a mapping of Python values, or `key=value` texts.

    Images are opened when they are first looked at. The base's weights are not: sizes follow from shapes.

    Raises:
        ConfigError: a setting is unknown or makes no sense.
    """
    return FleetView(load_config(source, overrides))
