"""The plain arm's ClientApp. Knows Flower's records; what a turn is, is in `network`."""

import math

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from plain_flower.network import accuracy, network, reestimate, statistics, train, trained
from plain_flower.settings import images_of, settings_of_this_run

app = ClientApp()


def _prepared(message: Message, context: Context) -> tuple[torch.nn.Module, int]:
    """The worker's model, with the global parameters and this camera's statistics in it."""
    model = network()
    model.train()  # ConvLoRA: parameters must not be loaded while B A is merged into the weight
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict(), strict=False)
    if "statistics" in context.state:
        model.load_state_dict(context.state.array_records["statistics"].to_torch_state_dict(), strict=False)
    return model, int(context.node_config["partition-id"])


@app.train()
def _train(message: Message, context: Context) -> Message:
    settings, (model, camera) = settings_of_this_run(), _prepared(message, context)
    number = int(message.content.config_records["config"]["server-round"])  # type: ignore[arg-type]
    lr = settings.lr * 0.5 * (1 + math.cos(math.pi * (number - 1) / settings.rounds))
    images = images_of(camera, "weather")
    generator = torch.Generator().manual_seed(camera + 1000 * number)
    loss = train(model, images, settings, lr, generator)
    context.state["statistics"] = ArrayRecord(statistics(model))
    metrics = MetricRecord({"num-examples": len(images.train), "train-loss": loss})
    return Message(RecordDict({"arrays": ArrayRecord(trained(model)), "metrics": metrics}), reply_to=message)


@app.evaluate()
def _evaluate(message: Message, context: Context) -> Message:
    """What FleetGrid's cameras measure: in weather and in clear air, each under statistics of that sky."""
    model, camera = _prepared(message, context)
    found: dict[str, float] = {}
    if message.content.config_records["config"].get("baseline"):
        for sky in ("weather", "clear"):
            found[f"source-{sky}"] = accuracy(model, images_of(camera, sky))
    for sky in ("clear", "weather"):  # the weather's statistics are the ones to keep
        images = images_of(camera, sky)
        reestimate(model, images.train)
        found[f"accuracy-{sky}"] = accuracy(model, images)
    context.state["statistics"] = ArrayRecord(statistics(model))
    metrics = MetricRecord({"num-examples": len(images.test), **found})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
