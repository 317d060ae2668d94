"""What PyTorch takes on a GPU for what the binary `gpu` measures: the copy, its own fake quantization, and products."""

import time

import torch


def seconds(call):
    for _ in range(5):
        call()
    torch.cuda.synchronize()
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(50):
            call()
        torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - start) / 50)
    return best


torch.manual_seed(1)
print(f"# torch {torch.__version__}, {torch.cuda.get_device_name()}: milliseconds, GB/s")
for side in (4096, 16384):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x = torch.randn(side, side, device="cuda").to(dtype)
        y = torch.empty_like(x)
        gigabytes = 2 * x.numel() * x.element_size() / 1e9
        name = f"{side} {str(dtype)[6:]}"
        copy = seconds(lambda: y.copy_(x))
        print(f"{name}, copy\t{copy * 1e3:.3f}\t{gigabytes / copy:.0f}")
        scale, zero = torch.tensor([0.025], device="cuda"), torch.tensor([0], dtype=torch.int32, device="cuda")
        fake = seconds(lambda: torch.fake_quantize_per_tensor_affine(x, scale, zero, -127, 127))
        print(f"{name}, fake_quantize_per_tensor_affine\t{fake * 1e3:.3f}\t{gigabytes / fake:.0f}")

batches = (1, 8, 16, 64, 512)
print(f"# 8 weights of 4096 x 4096 in turn, microseconds a product, batches {batches}")
for dtype in (torch.bfloat16, torch.float32):
    weights = [torch.randn(4096, 4096, device="cuda").to(dtype) for _ in range(8)]
    times = []
    for rows in batches:
        x = torch.randn(rows, 4096, device="cuda").to(dtype)
        times.append(seconds(lambda: [x @ weight for weight in weights]) / 8)
    print(f"torch, {str(dtype)[6:]}\t" + "\t".join(f"{t * 1e6:.1f}" for t in times))
