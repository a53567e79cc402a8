"""LoRA-C on a network of your own: thin factors beside every convolution, trained, and merged for the device.

python examples/lora_c_on_your_network.py
"""

import torch
import torch.nn.functional as F
from torchvision.models import resnet18

from fed_lorac.adapters.lora_c import LoraC


def main() -> None:
    """Attach, train for a few steps, read what would be sent, merge, and take the adapter off again."""
    torch.manual_seed(0)
    model = resnet18(num_classes=10)  # any network of nn.Conv2d layers, with your weights in it
    images, labels = torch.rand(8, 3, 32, 32), torch.randint(0, 10, (8,))
    of_all = sum(p.numel() for p in model.parameters())
    before = model.eval()(images)

    adapter = LoraC(rank=2, alpha=4.0)
    adapter.attach(model, torch.Generator().manual_seed(0))  # in place
    assert torch.allclose(model(images), before, atol=1e-6)  # B is zero: nothing has changed yet

    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05, momentum=0.9)
    for step in range(5):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        print(f"step {step}: loss {loss.item():.3f}")

    state = adapter.read(model)  # what a camera would send
    numbers = sum(tensor.numel() for tensor in state.values())
    print(f"{numbers:,} numbers to send, of {of_all:,} in the network: {numbers / of_all:.1%}")

    merged = adapter.merge(model)  # a copy: a plain resnet18 with as many operations as before
    assert torch.allclose(merged(images), model(images), atol=1e-4)
    adapter.detach(model)
    assert torch.allclose(model(images), before, atol=1e-6)  # the network as it was
    print("Merged:", type(merged).__name__, "with", sum(p.numel() for p in merged.parameters()), "parameters")


if __name__ == "__main__":
    main()
