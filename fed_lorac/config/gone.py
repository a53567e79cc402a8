"""Settings and choices that had another name once: what they are called now. Knows words alone."""

from collections.abc import Iterator, Mapping

__all__ = ["KEYS", "VALUES", "renamed"]

KEYS = {
    "run.cohort_size": "run.fleet.block_size",
    "run.block_size": "run.fleet.block_size",
    "run.checkpoint_every": "run.fleet.checkpoint_every",
    "run.block_timeout_s": "run.ray.block_timeout_s",
    "run.cohort_timeout_s": "run.ray.block_timeout_s",
    "run.fleet.block_timeout_s": "run.ray.block_timeout_s",
    "run.fleet.round_timeout_s": "run.round_timeout_s",
    "run.flower.round_timeout_s": "run.round_timeout_s",
    "run.target_accuracy": "`fed-lorac compare RUN --target ACCURACY`, of a run that is done",
    "ray.address": "run.ray.address",
    "model.width": "model.NAME.width, NAME being the model's",
    "model.norm": "model.NAME.norm, NAME being the model's",
    "model.shortcut": "model.NAME.shortcut, NAME being the model's",
    "model.pretrain_epochs": "model.pretrain.epochs",
    "data.download": "data.cifar10.download or data.cifar100.download",
    "data.cloud_share": "data.NAME.cloud_share, NAME being cifar10, cifar100 or folder",
    "fleet.period": "fleet.front.period, fleet.daily.period or fleet.walk.period",
    "fleet.lag": "fleet.front.lag",
    "fleet.dirichlet_alpha": "fleet.dirichlet.alpha",
    "fleet.link_deal": "fleet.link_assignment",
    "fleet.availability": 'fleet.limited.availability (with fleet.devices = "limited")',
    "fleet.dropout": 'fleet.limited.dropout (with fleet.devices = "limited")',
    "fleet.image_time_s": 'fleet.limited.image_time_s (with fleet.devices = "limited")',
    "fleet.speeds": 'fleet.limited.speeds (with fleet.devices = "limited")',
    "fleet.round_s": 'fleet.limited.round_s (with fleet.devices = "limited")',
    "adapter.train_first_conv": "adapter.METHOD.train_first_conv, METHOD being the adapter's",
    "adapter.train_classifier": "adapter.METHOD.train_classifier, METHOD being the adapter's",
    "adapter.rank_mode": "adapter.METHOD.rank_mode, METHOD being lora-c, ffa-lora-c or aad",
    "adapter.kernel_wise": "adapter.METHOD.kernel_wise, METHOD being lora-c or ffa-lora-c",
    "adapter.ranks": "adapter.rank, which takes several too",
    "adapter.atoms": "adapter.filter-atoms.atoms",
    "adapter.atoms_m1": "adapter.filter-atoms.m1",
    "adapter.atoms_kc": "adapter.filter-atoms.kc",
    "batch_norm.in_turn": "batch_norm.local.training_statistics",
    "batch_norm.window": "batch_norm.local.window",
    "strategy.downlink": "strategy.merged.downlink or strategy.clustered.downlink",
    "strategy.svd_rank": "strategy.merged.svd_rank or strategy.clustered.svd_rank",
    "strategy.groups_by": "strategy.clustered.by",
    "strategy.groups": "strategy.clustered.clusters",
    "strategy.group_share": "strategy.clustered.share",
    "strategy.centre": "strategy.aggregator",
    "strategy.trim": "strategy.trimmed.trim_fraction",
    "strategy.trim_fraction": "strategy.trimmed.trim_fraction",
    "strategy.faulty": "strategy.krum.malicious",
    "strategy.malicious": "strategy.krum.malicious",
    "strategy.clip_norm": "strategy.clipped.clip_norm",
    "strategy.noise": "strategy.clipped.noise",
    "strategy.server": "strategy.server_optimizer",
    "strategy.server_lr": "strategy.sgd.lr, strategy.momentum.lr, strategy.adam.lr or strategy.yogi.lr "
    "(without a server optimizer: strategy.clustered.server_lr or strategy.rotating-basis.server_lr)",
    "strategy.server_momentum": "strategy.momentum.beta, strategy.adam.beta1 or strategy.yogi.beta1",
    "strategy.server_beta2": "strategy.adam.beta2 or strategy.yogi.beta2",
    "strategy.server_tau": "strategy.adam.tau or strategy.yogi.tau",
    "codec.topk_share": "codec.topk.share",
}

VALUES = {
    ("adapter.method", "lora-c-ffa"): "ffa-lora-c",
    ("strategy.name", "plain"): "fedavg",
    ("strategy.name", "full"): "fedavg",
    ("strategy.name", "factors"): "factor-fedavg",
    ("strategy.name", "personal"): "clustered",
    ("strategy.server_optimizer", "average"): "sgd",
    ("fleet.link_assignment", "robin"): "round_robin",
    ("fleet.link_assignment", "dealt"): "round_robin",
    ("fleet.link_assignment", "drawn"): "random",
    ("fleet.link_assignment", "lots"): "random",
    ("batch_norm.local.training_statistics", "moving"): "batch",
}


def renamed(flat: Mapping[str, object]) -> Iterator[str]:
    """What is said of each key and value that has another name now."""
    for key, value in flat.items():
        known = key if "." in key else next((old for old in KEYS if old.partition(".")[2] == key), key)
        if known in KEYS:
            yield f"{known} is now {KEYS[known]}. Write that instead."
        elif isinstance(value, str) and (key, value) in VALUES:
            yield f'{key} = "{value}" is now {key} = "{VALUES[key, value]}". Write that instead.'
