"""What a run found: summary, adapter and model. Knows experiments, updates and accuracies; not Flower."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from torch import Tensor

from fed_lorac.adapters.deltas import apply_delta
from fed_lorac.aggregation.delta_sum import DeltaSum, add_state, compressed, sum_states
from fed_lorac.client.shapes import block_size_of
from fed_lorac.client.state import ClientState, GlobalModel, cluster_delta, personal_delta, read_deltas
from fed_lorac.config import Config, LimitedDevices
from fed_lorac.data.corruptions import frost_textures
from fed_lorac.experiment.experiment import Experiment, sees_frost
from fed_lorac.fleet.fleet import AS_IT_IS, Fleet
from fed_lorac.models.fingerprints import named_tensors, shapes_of
from fed_lorac.radio.battery import Battery
from fed_lorac.radio.link import Link
from fed_lorac.records.ledger import Row
from fed_lorac.records.measured import Measured
from fed_lorac.reporting.radios import ARMS, energy_of, on_links
from fed_lorac.reporting.sampling import Sample
from fed_lorac.runtime.versions import versions
from fed_lorac.server.fleet_strategy import Update
from fed_lorac.training.accuracy import has_batch_norm
from fed_lorac.wire.billing import Reference

__all__ = ["adapter_state", "label", "model_state", "own_state", "summary"]

_ACCURACIES = {"source": "accuracy_source", "zero_byte": "accuracy_zero_byte", "adapted": "accuracy"}
_WAYS = ("uplink", "downlink", "multicast_downlink")
_LAYERS = ("payload_bytes", "frame_bytes", "message_bytes")


def adapter_state(
    experiment: Experiment, global_model: GlobalModel, updates: Iterable[Update], not_in_updates: Mapping[str, DeltaSum]
) -> dict[str, Tensor]:
    """The run's adapter: the sum of its updates and of what is in none of them (`FleetStrategy.not_in_updates`), as
    factors (scale folded in) where those are thinner than dense."""
    frames = [(update.round, update.frame) for update in updates]
    states = [state for _, state in read_deltas(experiment, frames)]
    if global_model.factors:  # carried factors replace one another; only what is dense adds up
        states = [{k: v for k, v in state.items() if k not in global_model.factors} for state in states]
    sums = sum_states(((state, 1.0) for state in states), shapes_of(experiment.base.model), 1.0)
    for name, total in sum_states(
        [(global_model.factors, 1.0)], shapes_of(experiment.base.model), experiment.adapter.scale
    ).items():
        sums.setdefault(name, DeltaSum(total.shape)).add(total)
    for name, total in not_in_updates.items():
        sums.setdefault(name, DeltaSum(total.shape)).add(total)
    return _stacked(sums)


def model_state(
    experiment: Experiment, global_model: GlobalModel, not_in_updates: Mapping[str, DeltaSum]
) -> dict[str, Tensor]:
    """The merged model: the base's tensors with every update folded in, and what is in none; batch norm unfolded, the
    base's statistics."""
    tensors = {name: tensor.clone() for name, tensor in experiment.base.model.state_dict().items()}
    tensors |= global_model.tensors
    own = {n: tensors[n] for n in named_tensors(experiment.base.model)}
    apply_delta(own, global_model.factors, experiment.adapter.scale)
    apply_delta(own, _stacked(not_in_updates), 1.0)
    return tensors


def own_state(experiment: Experiment, state: ClientState, not_in_updates: Mapping[str, DeltaSum]) -> dict[str, Tensor]:
    """What a camera's network has beside the merged model, as a delta of it, from what it remembers."""
    shapes = shapes_of(experiment.base.model)
    sums = sum_states([(personal_delta(experiment, state), 1.0)], shapes, experiment.adapter.scale)
    if experiment.plan.clustered and state.personal_frame:
        add_state(sums, cluster_delta(experiment, state.personal_frame), 1.0, shapes, 1.0)
    for name, total in not_in_updates.items():
        sums.setdefault(name, DeltaSum(total.shape)).add(total, -1.0)
    return _stacked(sums)


def _stacked(sums: Mapping[str, DeltaSum]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name, total in sums.items():
        state |= compressed(total, name, "stack", 0)
    return state


def summary(
    experiment: Experiment,
    rows: list[Row],
    sent: Iterable[Row],
    full: Reference,
    source: Measured,
    zero_byte: Measured,
    adapted: Measured,
    *,
    interrupted: bool,
    groups: Mapping[str, int] | None = None,
    remarks: Sequence[str] = (),
) -> dict[str, Any]:
    """Everything a table needs, in plain numbers; accuracies are fleet means, 0 to 1. `rows`, `sent`: the ledger's
    rounds, and cameras; `full`: what full fine-tuning's messages weigh."""
    arms = {"source": source, "zero_byte": zero_byte, "adapted": adapted}
    totals = _totals(rows)
    config = experiment.config
    weathers, fleet = _weathers(experiment, len(rows)), experiment.fleet
    air_time_s, days = on_links(dict(_links(fleet)), (row for row in sent if row["round"] <= len(rows)), full)
    return {
        **{f"{arm}_accuracy": measured.mean() for arm, measured in arms.items()},
        "clean_accuracy": {arm: measured.mean_clean() for arm, measured in arms.items()},
        "per_corruption": {weather: _means(weathers, arms, weather) for weather in dict.fromkeys(weathers.values())},
        "cameras_measured": _cameras_measured(weathers, arms, rows) | {"of": len(fleet.cameras)},
        **_standard_errors(experiment, arms),
        "schedule": config.fleet.schedule,
        "over_rounds": {arm: _over_rounds(rows, column) for arm, column in _ACCURACIES.items()},
        **{f"{whose}total_bytes": _both_ways(totals, whose, "downlink") for whose in ARMS.values()},
        **{f"{whose}multicast_bytes": _both_ways(totals, whose, "multicast_downlink") for whose in ARMS.values()},
        **(_by_multicast(config, rows) if config.fleet.multicasts else {}),
        "bytes": totals,
        "air_time_s": air_time_s,
        "days": days,
        "energy": _energy(experiment, rows),
        "simulated_s": math.fsum(row["round_time_s"] for row in rows),
        "rounds": len(rows),
        "rounds_skipped": sum(bool(row["skipped"]) for row in rows),
        "interrupted": interrupted,
        "method": config.adapter.method,
        "strategy": config.strategy.name,
        "label": label(config),
        "objective": config.local.objective,
        **({"without_labels": _without_labels(rows)} if config.local.guesses else {}),
        **({"layers_chosen": _layers_chosen(rows)} if config.adapter.chooses else {}),
        "data": experiment.data.name,
        "camera_names": {} if fleet.overlapping else {str(one.id): one.name for one in fleet.cameras if one.name},
        "frost_textures": frost_textures() if sees_frost(experiment) else None,
        "base": {
            "source": experiment.base.source,
            "fingerprint": experiment.base.fingerprint,
            "normalization": experiment.base.normalization.text,
            "batch_norm": has_batch_norm(experiment.base.model),
            "notes": list(experiment.base.notes),
        },
        "base_saw_fleet_images": experiment.base.saw_fleet_images,
        "groups": dict(groups or {}),
        "reconstruction_error": getattr(experiment.adapter, "reconstruction_error", None),
        "remarks": list(remarks),
        "precision": experiment.precision,
        "block_size": block_size_of(experiment),
        "device": str(experiment.device),
        "seed": config.run.seed,
        "config": config.to_flat(),
        "seconds": math.fsum(row["seconds"] for row in rows),
        "versions": versions(),
    }


def _standard_errors(experiment: Experiment, arms: Mapping[str, Measured]) -> dict[str, Any]:
    """Those of the fleet's means, where they are over a sample."""
    plan, cameras = experiment.plan, experiment.fleet.cameras
    if not (plan.evaluate_cameras or plan.evaluate_images):
        return {}
    counts = {camera: len(cameras[camera].evaluation) for camera in experiment.measured}
    images = {camera: (min(plan.evaluate_images or of, of), of) for camera, of in counts.items()}
    sample = Sample(len(cameras), images)
    found = {arm: sample.standard_error(measured.weather) for arm, measured in arms.items()}
    clean = {arm: sample.standard_error(measured.clean) for arm, measured in arms.items()}
    return {"standard_error": {**found, "clean": clean}}


def _totals(rows: Sequence[Row]) -> dict[str, int | None]:
    """Bytes of the whole run by column; None where rows are older than the column."""
    names = [f"{whose}{way}_{layer}" for whose in ARMS.values() for way in _WAYS for layer in _LAYERS]
    return {name: sum(row[name] for row in rows) if all(name in row for row in rows) else None for name in names}


def _both_ways(totals: Mapping[str, int | None], whose: str, down: str) -> int | None:
    """Frames, up and down: what crosses a radio. Flower's messages around them are the simulation's."""
    up, down_too = (totals[f"{whose}{way}_frame_bytes"] for way in ("uplink", down))
    return None if up is None or down_too is None else up + down_too


def _by_multicast(config: Config, rows: Sequence[Row]) -> dict[str, Any]:
    """What is said besides where updates go down by multicast: the totals above are of that."""
    ways = ("uplink", "unicast_downlink")
    sums = {whose: sum(row[f"{whose}{way}_frame_bytes"] for row in rows for way in ways) for whose in ARMS.values()}
    return {
        "downlink": config.fleet.downlink,
        **{f"{whose}unicast_bytes": total for whose, total in sums.items()},
        "cameras_repaired": sum(row["cameras_repaired"] for row in rows),
    }


def _layers_chosen(rows: Sequence[Row]) -> list[str]:
    """The layers that the server has chosen; empty where no round came to that."""
    return next((row["layers_chosen"].split(", ") for row in rows if row["layers_chosen"]), [])


def _energy(experiment: Experiment, rows: Sequence[Row]) -> dict[str, float | None]:
    fleet, limits = experiment.fleet, experiment.config.fleet.table(LimitedDevices)
    battery = Battery(limits.battery_wh, limits.self_discharge, limits.solar_wh)
    counts = np.bincount(fleet.link_places, minlength=len(fleet.links))
    return energy_of(rows, list(zip(fleet.links.values(), counts.tolist(), strict=True)), battery)


def _links(fleet: Fleet) -> Iterator[tuple[str, tuple[Link, int]]]:
    """Each link that a camera has, and how many have it, the first camera's first."""
    places, first, counts = np.unique(fleet.link_places, return_index=True, return_counts=True)
    names = list(fleet.links)
    for place in np.argsort(first):
        name = names[places[place]]
        yield name, (fleet.links[name], int(counts[place]))


def _without_labels(rows: Sequence[Row]) -> dict[str, Any]:
    """How cameras learnt that lack labels: in the mean over rounds and in all of them."""
    return {
        "online_accuracy": _over_rounds(rows, "online_accuracy"),
        "labels_used": sum(row["labels_used"] for row in rows),
        "cameras_collapsed": sum(row["cameras_collapsed"] for row in rows),
    }


def label(config: Config) -> str:
    """A run's method in a few words, for tables; how it learns, unless it is from labels."""
    local = config.local
    if not local.guesses or config.strategy.name == "zero-byte":
        return _method(config)
    other = f" and {local.unlabelled}" if local.objective == "mixed" else ""
    share = f", {local.tables['mixed']['labelled_share']:.0%} labels" if other else ""
    return f"{_method(config)}, {'labels' if other else local.objective}{other}{share}"


def _method(config: Config) -> str:
    """What is trained and averaged."""
    a, s = config.adapter, config.strategy
    if s.name == "zero-byte":  # whatever the adapter is, it is not used
        return s.name
    if a.method == "full":
        return "full fine-tuning" if s.name == "fedavg" else f"full fine-tuning, {s.name}"
    own = s.settings("name")
    how = " by ".join([" ".join([s.name, *_each(own, "downlink")]), *_each(own, "by")])
    how += ", nothing shared" if own.get("shared") is False else ""
    how += f", {a.personal} personal" if a.personal else ""
    its = a.settings("method")
    where = f" on {a.layers}" if its.get("layers", "all") != "all" else ""
    where += f" layers of {a.budget_bytes:,} bytes" if a.chooses else ""
    if "rank" not in its:
        return f"{a.method}{where}, {how}"
    mode = f" ({'kernel-wise' if its.get('kernel_wise') else its['rank_mode']})" if "rank_mode" in its else ""
    ranks = "/".join(map(str, a.ranks))
    return f"{a.method} r={ranks}{mode}{where}, {how}"


def _each(settings: Mapping[str, Any], key: str) -> list[Any]:
    return [settings[key]] if key in settings else []


def _weathers(experiment: Experiment, round: int) -> dict[int, str]:
    """The weather of each camera that may be measured, by corruption."""
    fleet = experiment.fleet
    cameras = sorted(experiment.measured) if fleet.overlapping else range(len(fleet.cameras))
    found = {camera: fleet.weather(camera, round) for camera in cameras}
    return {k: one.corruption if one.severity or one.corruption == AS_IT_IS else "clear" for k, one in found.items()}


def _over_rounds(rows: Iterable[Row], column: str) -> float | None:
    """The mean over the rounds that were measured."""
    found = [row[column] for row in rows if row[column] is not None]
    return fmean(found) if found else None


def _means(weathers: Mapping[int, str], arms: Mapping[str, Measured], weather: str) -> dict[str, float | None]:
    found = {arm: _in(weathers, weather, measured) for arm, measured in arms.items()}
    return {arm: fmean(values) if values else None for arm, values in found.items()}


def _in(weathers: Mapping[int, str], weather: str, measured: Measured) -> list[float]:
    """The accuracies of the cameras in one weather."""
    return [accuracy for camera, accuracy in measured.weather.items() if weathers[camera] == weather]


def _cameras_measured(weathers: Mapping[int, str], arms: Mapping[str, Measured], rows: Sequence[Row]) -> dict[str, Any]:
    """Over how many cameras each mean is, and how many there are (`of`): by arm, in clear air, by corruption, and the
    fewest and most in a round that was measured."""
    by_round = [row["cameras_measured"] for row in rows if row["accuracy"] is not None]
    return {
        "of": len(weathers),
        **{arm: len(measured.weather) for arm, measured in arms.items()},
        "clean": {arm: len(measured.clean) for arm, measured in arms.items()},
        "per_corruption": {
            weather: {"of": list(weathers.values()).count(weather)}
            | {arm: len(_in(weathers, weather, measured)) for arm, measured in arms.items()}
            for weather in dict.fromkeys(weathers.values())
        },
        "over_rounds": {"fewest": min(by_round, default=0), "most": max(by_round, default=0)},
    }
