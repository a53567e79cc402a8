"""What an exported file says of itself, as strings: the same keys in every format. Knows runs; not formats."""

import hashlib
import json

from fed_lorac import __version__
from fed_lorac.experiment.base_weights import recorded_resize
from fed_lorac.export.deployed import Deployed
from fed_lorac.export.finished import Finished, own_change_of_camera, statistics_of_camera
from fed_lorac.models import described
from fed_lorac.models.fingerprints import fingerprint

__all__ = ["adapter_facts", "network_facts"]

_INSIDE = "give RGB pixels of 0 to 255: normalization is inside"
_RESIZED = {
    "squeeze": "squeeze the whole image to {side} x {side}, bilinear with antialiasing",
    "crop": "cut out the middle square, as wide as the shorter side, and bring it to {side} x {side}, bilinear with "
    "antialiasing",
}
_OUTSIDE = (
    "give RGB pixels of 0 to 255 to the network of fed_lorac.export.load_network, which normalizes; the tensors alone "
    "are of the network behind that: it takes (pixels - input_mean) / input_std"
)


def network_facts(run: Finished, camera: int | None, deployed: Deployed, *, normalizes: bool) -> dict[str, str]:
    """What goes in and comes out, and where the network is from. `normalizes`: the file's own operations do."""
    model = run.config.model
    side = run.config.data.image_size
    return {
        **_origin(run, camera),
        "holds": "network",
        **described(model.name, model.settings("name")),
        "batch_norm": deployed.batch_norm,
        "classes": json.dumps(run.classes),
        "input": f"images: float32 (N, 3, {side}, {side}), RGB, 0 to 255",
        "input_shape": json.dumps(["N", 3, side, side]),
        "input_resize": _RESIZED[run.config.data.resize].format(side=side),
        "input_mean": json.dumps(_of_pixels(deployed.normalization.mean)),
        "input_std": json.dumps(_of_pixels(deployed.normalization.std)),
        "input_words": _INSIDE if normalizes else _OUTSIDE,
        "output": f"logits: float32 (N, {len(run.classes)})",
    }


def adapter_facts(run: Finished, camera: int | None) -> dict[str, str]:
    """What the factors belong to; and how a network adapts to each batch by it, where that is what was learned."""
    adapter = run.config.adapter
    facts = {**_origin(run, camera), "holds": "adapter", "method": adapter.method}
    if adapter.first().adapts_to_batch:
        facts["settings"] = json.dumps(adapter.settings("method"))
    return facts


def _origin(run: Finished, camera: int | None) -> dict[str, str]:
    said = run.metadata
    return {
        "fed_lorac": __version__,
        "run": _fingerprint(run),
        "base": said["base"],
        "folded_round": said["folded_round"],
        "data": said["data"],
        "data_fingerprint": said.get("data_fingerprint", ""),
        **recorded_resize(run.config),
        "statistics": f"camera {camera}" if statistics_of_camera(run, camera) else "base",
        "own_part": f"camera {camera}" if own_change_of_camera(run, camera) else "none",
        "normalization": run.normalization.text,
    }


def _fingerprint(run: Finished) -> str:
    """A run's identity: 16 hex digits over what it was asked and the merged model that it made."""
    floats = {name: tensor for name, tensor in run.model.tensors.items() if tensor.is_floating_point()}
    told = {key: value for key, value in run.config.to_flat().items() if key not in ("run.out", "run.ray.address")}
    return hashlib.sha256(f"{json.dumps(told, sort_keys=True)}{fingerprint(floats)}".encode()).hexdigest()[:16]


def _of_pixels(values: tuple[float, float, float]) -> list[float]:
    return [round(255 * value, 6) for value in values]
