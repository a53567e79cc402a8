"""A run from Python: a fleet of cameras adapts to fog, snow and noise; what that gave and cost, in tables.

python examples/one_run.py
"""

import numpy as np
from sklearn.datasets import load_digits

import fed_lorac as fl


def main() -> None:
    """Run two rounds, look at them, and give the adapted network of one camera an image."""
    run = fl.run("quickstart", {"run.rounds": 2, "local.epochs": 2}, out="runs/one-run", overwrite=True)
    print(run)

    rounds = run.rounds[["round", "accuracy", "accuracy_source", "uplink_message_bytes", "downlink_message_bytes"]]
    print(rounds.to_string(index=False))

    by_weather = run.cameras.groupby("corruption").agg({"train_loss": "mean", "uplink_air_time_s": "mean"})
    print(by_weather)

    share = run.summary["total_bytes"] / run.summary["full_fp32_total_bytes"]
    print(f"Full fine-tuning would have sent {1 / share:.0f} times as many bytes.")

    scan = load_digits().images[0] * (255 / 16)
    image = np.repeat(np.kron(scan, np.ones((4, 4)))[None, :, :, None], 3, axis=3).astype(np.uint8)
    foggy = fl.corrupt(image, "fog", severity=3, rng=np.random.default_rng(0))
    network = run.model(camera=0)
    print("Camera 0 sees a", network.classes[int(network(foggy).argmax())])


if __name__ == "__main__":
    main()
