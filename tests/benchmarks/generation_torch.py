"""What generation_speed measures, in PyTorch: Llama shapes with random weights, 32 adapters on q and v, greedy.

One adapter after another by transformers' generate (of 32 adapters 2 are timed), and all at once: every q and v
projection adds the adapters' terms by two batched products, over a static cache with a compiled decoding step.
Usage: generation_torch.py [--model llama7b|llama3-8b] [--sequences 512,1024] [--layers 0 (all)] [--no-batched]
"""
import argparse, statistics, time
import torch
from transformers import LlamaConfig, LlamaForCausalLM

ap = argparse.ArgumentParser()
ap.add_argument("--model", default="llama3-8b")
ap.add_argument("--sequences", default="512,1024")
ap.add_argument("--layers", type=int, default=0)
ap.add_argument("--probes", type=int, default=32)
ap.add_argument("--prompt", type=int, default=32)
ap.add_argument("--new", type=int, default=64)
ap.add_argument("--no-batched", action="store_true")
a = ap.parse_args()
torch.set_default_dtype(torch.bfloat16)
RANK, SCALE = 8, 2.0


class Batched(torch.nn.Module):
    """A frozen linear layer plus an adapter for each of P equal parts of the batch."""

    def __init__(self, base):
        super().__init__()
        self.base, self.out, self.inner = base, *base.weight.shape
        self.A = self.B = None

    def spread(self, probes):
        self.A = torch.randn(probes, self.inner, RANK, device="cuda") * 0.02
        self.B = torch.randn(probes, RANK, self.out, device="cuda") * 0.02

    def forward(self, x):
        y = self.base(x)
        rows = x.reshape(self.A.shape[0], -1, self.inner)
        return y + (SCALE * torch.bmm(torch.bmm(rows, self.A), self.B)).view_as(y)


def build():
    sizes = dict(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, max_position_embeddings=4096)
    if a.model == "llama7b":
        sizes.update(intermediate_size=11008, vocab_size=32000)
    else:
        sizes.update(intermediate_size=14336, vocab_size=128256, num_key_value_heads=8, rope_theta=500000.0)
    if a.layers:
        sizes["num_hidden_layers"] = a.layers
    config = LlamaConfig(**sizes, bos_token_id=None, eos_token_id=None, pad_token_id=0)
    config._attn_implementation = "sdpa"
    with torch.device("cuda"):
        model = LlamaForCausalLM(config)
    model.eval().requires_grad_(False)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.normal_(0, 0.02)
    layers = []
    for module in list(model.modules()):
        for name in ("q_proj", "v_proj"):
            if hasattr(module, name):
                setattr(module, name, Batched(getattr(module, name)))
                layers.append(getattr(module, name))
    return model, layers


def seconds(model, ids, new, static, repetitions):
    def run():
        more = {"cache_implementation": "static"} if static else {}
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new,
                       do_sample=False, **more)
        torch.cuda.synchronize()

    run()
    times = []
    for _ in range(repetitions):
        start = time.time()
        run()
        times.append(time.time() - start)
    return statistics.median(times)


model, layers = build()
print(torch.cuda.get_device_name(), a.model, len(model.model.layers), "layers", flush=True)
for sequences in map(int, a.sequences.split(",")):
    own = sequences // a.probes
    ids = torch.randint(0, 32000, (own, a.prompt), device="cuda")
    for layer in layers:
        layer.spread(1)
    with torch.no_grad():
        prefill = seconds(model, ids, 1, False, 2)
        whole = seconds(model, ids, a.new, False, 2)
    print(f"{sequences} sequences, one adapter after another: {a.probes * whole:.2f} s, prefill {a.probes * prefill:.3f} s, "
          f"a step of all {a.probes * (whole - prefill) / (a.new - 1):.4f} s", flush=True)
    if a.no_batched:
        continue
    for layer in layers:
        layer.spread(a.probes)
    ids = ids.repeat(a.probes, 1)
    with torch.no_grad():
        prefill = seconds(model, ids, 2, True, 2)
        whole = seconds(model, ids, a.new, True, 2)
    print(f"{sequences} sequences, all at once: {whole:.2f} s, a step {(whole - prefill) / (a.new - 2):.4f} s", flush=True)
