"""What a run is, beside its config: what a resumed one must find again. Knows experiments; not checkpoints.

A config names images, a base and a device; this says what they were. Where one of them is another now, the rest of the
run would be of another experiment than its beginning.
"""

import json
from collections.abc import Mapping

from fed_lorac.client.shapes import block_size_of
from fed_lorac.data.corruptions import corruption_fingerprint, frost_textures
from fed_lorac.errors import RunError
from fed_lorac.experiment.base_weights import recorded_resize
from fed_lorac.experiment.experiment import Experiment, sees_frost
from fed_lorac.registry import CORRUPTIONS

__all__ = ["check_same", "identity_of", "metadata_of"]

_NEW_RUN = "or start a new run"

_OWN = "code of packages whose parts it names"

_REMEDIES = {
    _OWN: f"Put that code back, or install the version that it began with, {_NEW_RUN}.",
    "images": f"Put the images back as they were (data.root may be another), {_NEW_RUN}.",
    "classes": f"Give the classes their names again, {_NEW_RUN}.",
    "base network": f"Put back the weights that model.weights names, {_NEW_RUN}.",
    "normalization": f"Put back the weights that model.weights names, {_NEW_RUN}.",
    "precision": "Go on where the CPU multiplies bf16 as then, or set run.precision to what it was: "
    "slower, and the rest may differ in its last bits.",
    "device": f"Set run.device to what it was, {_NEW_RUN}.",
    "cameras side by side": f"Set run.fleet.block_size to what it was, {_NEW_RUN}.",
    "weather": f"Use the version of fed-lorac, or the corruptions, that it began with, {_NEW_RUN}.",
    "frost textures": "Install fed-lorac[frost] if they were the real ones; uninstall imagecorruptions if not.",
}


def identity_of(experiment: Experiment) -> dict[str, str]:
    """What the config does not pin down, in words and fingerprints."""
    own = experiment.config.outside()
    return {
        "images": experiment.data.fingerprint,
        "classes": json.dumps(experiment.data.classes),
        "base network": experiment.base.fingerprint,
        "normalization": experiment.base.normalization.text,
        "precision": experiment.precision,
        "device": experiment.device.type,
        "cameras side by side": str(block_size_of(experiment)),
        "frost textures": frost_textures() if sees_frost(experiment) else "none",
        "weather": _weather(experiment),
        **({_OWN: ", ".join(f"{package} {code}" for package, code in sorted(own.items()))} if own else {}),
    }


def metadata_of(experiment: Experiment, folded_round: int) -> dict[str, str]:
    """What the tensors that a run leaves are of, as text beside them."""
    config, data, base = experiment.config, experiment.data, experiment.base
    return {
        "base": base.fingerprint,
        "folded_round": str(folded_round),
        "method": config.adapter.method,
        "data": data.name,
        "data_fingerprint": data.fingerprint,
        **recorded_resize(config),
        "classes": json.dumps(data.classes),
        "normalization": base.normalization.text,
        "seed": str(config.run.seed),
    }


def _weather(experiment: Experiment) -> str:
    """The code of the part alone; the versions of its libraries are compared elsewhere."""
    if experiment.config.data.name == "cifar10c":
        return "on file"
    found = {corruption_fingerprint(name) for name in experiment.fleet.corruptions if name in CORRUPTIONS.names}
    return "made by replaced corruptions" if None in found else " ".join(sorted({f.split(",")[0] for f in found if f}))


def check_same(then: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise `RunError` with both values and the remedy where a run would go on as another."""
    for what, value in now.items():
        if then.get(what) != value:
            raise RunError(
                f"A run goes on with what it began with; its {what} was {then.get(what, 'not recorded')}, and is "
                f"{value} now. {_REMEDIES[what]}"
            )
