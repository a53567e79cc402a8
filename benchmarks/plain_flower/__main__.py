"""`python -m plain_flower`: the plain arm, whole, as a process of its own; settings and result are files in its
environment."""

from flwr.simulation import run_simulation

from plain_flower import client, server
from plain_flower.settings import settings_of_this_run

if __name__ == "__main__":
    settings = settings_of_this_run()
    on_gpu = settings.device.startswith("cuda")
    run_simulation(
        server_app=server.app,
        client_app=client.app,
        num_supernodes=settings.cameras,
        backend_config={
            "init_args": {"num_cpus": settings.workers, **({"num_gpus": 1} if on_gpu else {})},
            "client_resources": {"num_cpus": 1, "num_gpus": 1 / settings.workers if on_gpu else 0.0},
        },
    )
