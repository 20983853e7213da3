"""Recognize handwritten digits with PyTorch, on as many hosts as the job has."""

import argparse
import os
from pathlib import Path

import torch
import torch.distributed
from digits import test_rows, training_rows
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--learning-rate", type=float, default=0.2)
    parser.add_argument("--model-dir", type=Path, default=os.environ["SM_MODEL_DIR"])
    options = parser.parse_args()

    torch.distributed.init_process_group("gloo")  # "nccl" where there are GPUs
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    pixels, labels = training_rows(rank, world)  # each process trains on its part
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    model = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=options.learning_rate, momentum=0.9)
    for epoch in range(options.epochs):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(pixels), labels)
        loss.backward()  # the gradients of all processes meet here
        optimizer.step()
        if rank == 0 and epoch % 20 == 19:
            print(f"epoch={epoch} train_loss={loss.item():.4f}")
    if rank == 0:
        pixels, labels = test_rows()
        accuracy = (network(pixels).argmax(1) == labels).float().mean().item()
        print(f"world={world} test_accuracy={accuracy:.4f}")
        torch.jit.script(network).save(str(options.model_dir / "model.pt"))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
