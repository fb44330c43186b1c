"""PyTorch's scaled_dot_product_attention (causal, bf16) at the shapes of attention_speed, counted the same way."""
import math
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

TOKENS, SETS, ROUNDS, REPEATS = 16384, 4, 8, 15


def time_of(call):
    times = []
    for i in range(REPEATS + 2):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for r in range(ROUNDS):
            call(r)
        end.record()
        end.synchronize()
        if i >= 2:
            times.append(1000 * begin.elapsed_time(end) / ROUNDS)
    return sorted(times)[len(times) // 2]


print(torch.__version__, torch.cuda.get_device_name())
print("head_dim   heads tokens | flash us   TFLOP/s    GB/s | cudnn us   TFLOP/s")
for d, h, kv in [(128, 32, 32), (64, 12, 12), (128, 32, 8), (80, 16, 16), (96, 16, 16), (256, 16, 16)]:
    for n in [128, 512, 2048]:
        b = TOKENS // n
        def make(heads):  # [b, heads, n, d] over rows of heads * d, as packed sequences lie
            return torch.rand(b, n, heads, d, device="cuda", dtype=torch.bfloat16).mul_(3.4).sub_(1.7).transpose(1, 2)
        data = [(make(h), make(kv), make(kv)) for _ in range(SETS)]
        flops = 2.0 * d * h * n * TOKENS
        size = 2.0 * TOKENS * d * (2 * h + 2 * kv)
        line = f"{d:8d} {h:4d}/{kv:<2d} {n:6d} |"
        for backend in [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION]:
            try:
                with sdpa_kernel(backend), torch.no_grad():
                    t = time_of(lambda r: torch.nn.functional.scaled_dot_product_attention(
                        *data[r % SETS], is_causal=True, enable_gqa=h != kv))
                line += f" {t:8.1f} {flops / t * 1e-6:9.1f}"
                if backend == SDPBackend.FLASH_ATTENTION:
                    line += f" {size / t * 1e-3:7.0f} |"
            except RuntimeError as error:
                line += f" not run ({str(error).splitlines()[0][:40]}) |"
        print(line, flush=True)
        del data
