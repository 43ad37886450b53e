"""PyTorch, eager or compiled, as its performance guide says: channels_last, fused optimizer,
`inference_mode`. It uses all cores by default. On a GPU, float32 may be TF32, cuDNN searches for
its fastest kernels, and bfloat16 is autocast."""

import sys

import torch
import torch.nn.functional as functional
from protocol import serve
from torch import nn


class _Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


def _modules(layers: list[dict], channels: int, size: int) -> tuple[list[nn.Module], int, int]:
    """The modules, and the channels and the side of what they return."""
    modules = []
    for layer in layers:
        kind = layer["kind"]
        if kind == "block":
            inner, channels, size = _modules(layer["layers"], channels, size)
            modules.append((_Residual if layer["residual"] else nn.Sequential)(*inner))
        elif kind == "conv":
            kernel, same = layer["kernel"], layer["padding"] == "SAME"
            padding = kernel // 2 if same else 0
            modules.append(
                nn.Conv2d(
                    channels,
                    layer["filters"],
                    kernel,
                    layer["stride"],
                    padding,
                    groups=channels if layer["depthwise"] else 1,
                    bias=layer["bias"],
                )
            )
            channels, size = layer["filters"], (size + 2 * padding - kernel) // layer["stride"] + 1
        elif kind == "batch_norm":
            norm = nn.BatchNorm2d(channels, eps=layer["epsilon"])
            norm.weight.requires_grad = layer["scale"]
            modules.append(norm)
        elif kind == "max_pool":
            modules.append(nn.MaxPool2d(layer["window"]))
            size //= layer["window"]
        elif kind == "dropout":
            modules.append(nn.Dropout(layer["rate"]))
        elif kind == "mean":
            modules += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        elif kind == "flatten":
            modules.append(nn.Flatten())
            channels *= size * size
        elif kind == "dense":
            modules.append(nn.Linear(channels, layer["units"], bias=layer["bias"]))
            channels = layer["units"]
        else:
            modules.append({"relu": nn.ReLU, "relu6": nn.ReLU6, "gelu": nn.GELU}[kind]())
    return modules, channels, size


def _optimizer(job: dict, network: nn.Sequential) -> torch.optim.Optimizer:
    options = job["optimizer"]
    decayed = [layer["l2"] for layer in job["layers"] if layer["kind"] == "conv"]
    kernels = [module.weight for module in network if isinstance(module, nn.Conv2d)]
    l2 = {id(kernel): weight for kernel, weight in zip(kernels, decayed, strict=True)}
    groups: dict[float, list] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            groups.setdefault(2 * l2.get(id(parameter), 0.0), []).append(parameter)
    parameters = [{"params": group, "weight_decay": w} for w, group in groups.items()]
    if options["name"] == "sgd":
        return torch.optim.SGD(
            parameters, options["learning_rate"], options["momentum"], nesterov=True, fused=True
        )
    betas = (options["b1"], options["b2"])
    return torch.optim.Adam(
        parameters, options["learning_rate"], betas, options["epsilon"], fused=True
    )


def build(job: dict) -> dict:
    torch.manual_seed(0)
    device = job.get("device", "cpu")
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    modules, _, _ = _modules(job["layers"], 3, job["side"])
    network = nn.Sequential(*modules).to(device, memory_format=torch.channels_last)
    frozen = network[: job["frozen"]].requires_grad_(False)
    optimizer = _optimizer(job, network)
    images = torch.rand(job["batch_size"], 3, job["side"], job["side"])
    images = images.to(device, memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (job["batch_size"],)).to(device)

    def forward(images):
        with torch.autocast(device, torch.bfloat16, enabled=job.get("dtype") == "bfloat16"):
            return network(images)

    def loss_of(images, labels):
        return functional.cross_entropy(forward(images), labels)

    if sys.argv[1] == "compile":
        loss_of, forward = torch.compile(loss_of), torch.compile(forward)

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def train(steps: int) -> None:
        network.train()
        frozen.eval()  # batch norm then uses its running statistics
        for _ in range(steps):
            optimizer.zero_grad()
            loss_of(images, labels).backward()
            optimizer.step()
        wait()

    def infer(steps: int) -> None:
        network.eval()
        with torch.inference_mode():
            for _ in range(steps):
                forward(images)
        wait()

    host = images.cpu().permute(0, 2, 3, 1).numpy()

    def serve(steps: int) -> None:
        network.eval()
        with torch.inference_mode():
            for _ in range(steps):
                forward(torch.from_numpy(host).permute(0, 3, 1, 2).to(device)).float().cpu().numpy()

    run = {"train": train, "infer": infer, "serve": serve}
    if device == "cuda":
        run["peak_device_bytes"] = torch.cuda.max_memory_allocated
    return run


serve(build)
