"""Writes the golden files of this directory with PyTorch, transformers and PEFT.

    python -m venv /some/env && . /some/env/bin/activate
    pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 safetensors==0.8.0
    python tests/golden/make_golden.py

Nothing else in the project needs torch. The models are random and tiny, one of each
family, and every file is small enough to be committed:

    <name>/model/               a saved model, as `save_pretrained` writes it
    <name>/logits.safetensors   tokens and attention_mask [B, T], logits [B, T, V]; rows
                                are padded on the right, positions count from 0
    <name>/greedy.json          prompts, eos_id, max_new_tokens and what `generate`
                                returned after each prompt, end token included
    <name>/peft_default/        an adapter PEFT saved with its default targets
    <name>/peft_all/            the same with all seven targets
    <name>/peft_*.safetensors   logits of the same tokens under that adapter, and after
                                merge_and_unload
    <name>/peft_*_greedy.json   greedy.json under that adapter
    inner/inner.json            one LoRA training run step by step, in two loss modes;
                                the file says what its fields mean
    inner/{initial,reference,masked}.safetensors
                                adapters before and after, as layers/<target>/{a,b}
"""

import json
import pathlib
import shutil

import peft
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

HERE = pathlib.Path(__file__).parent
VOCAB = 264
EOS = 256
ALL_TARGETS = [f"{n}_proj" for n in ("q", "k", "v", "o", "gate", "up", "down")]


def configs() -> dict[str, transformers.PretrainedConfig]:
    """One small config of each family, every option of the family in use."""
    common = {"vocab_size": VOCAB, "max_position_embeddings": 256}
    common |= {"bos_token_id": EOS, "eos_token_id": EOS, "pad_token_id": EOS}
    plain_rope = {"rope_type": "default", "rope_theta": 1_000_000.0}
    return {
        "qwen2": transformers.Qwen2Config(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            rope_parameters=plain_rope,
            **common,
        ),
        "qwen25": transformers.Qwen2Config(
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=3,
            num_attention_heads=6,
            num_key_value_heads=2,
            tie_word_embeddings=False,
            rope_parameters=plain_rope,
            rms_norm_eps=1e-5,
            **common,
        ),
        "qwen3": transformers.Qwen3Config(
            hidden_size=32,
            intermediate_size=72,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            tie_word_embeddings=True,
            rope_parameters=plain_rope,
            **common,
        ),
        "llama": transformers.LlamaConfig(
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=1,
            tie_word_embeddings=False,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 10_000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
            **common,
        ),
    }


def randomise(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Draws every weight so that no part of the model can be left out unnoticed."""
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if "norm" in name:
            weight.data = 1 + 0.2 * noise
        elif name.endswith("bias"):
            weight.data = 0.3 * noise
        elif "embed" in name:
            weight.data = 0.5 * noise
        else:
            weight.data = noise / weight.shape[1] ** 0.5


def save_tokenizer(path: pathlib.Path) -> None:
    """A byte-level tokenizer: one token a byte, and the end-of-text token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {symbol: index for index, symbol in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )
    assert fast.eos_token_id == EOS
    fast.save_pretrained(path)


def batch(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and attention mask of three rows of different length, padded right."""
    lengths = (40, 23, 7)
    tokens = torch.randint(0, 256, (len(lengths), max(lengths)), generator=generator)
    mask = torch.zeros_like(tokens)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
    return torch.where(mask == 1, tokens, EOS), mask


def logits(model, tokens, mask) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=tokens, attention_mask=mask).logits.contiguous()


def greedy(model, prompts, eos: int, steps: int) -> tuple[list[list[int]], float]:
    """What `generate` adds to each prompt, one at a time, and the closest decision."""
    outputs, margin = [], float("inf")
    for prompt in prompts:
        ids = torch.tensor([prompt])
        result = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=steps,
            eos_token_id=eos,
            pad_token_id=EOS,
            return_dict_in_generate=True,
            output_logits=True,
        )
        for step_logits in result.logits:
            first, second = step_logits[0].topk(2).values.tolist()
            margin = min(margin, first - second)
        outputs.append(result.sequences[0, len(prompt) :].tolist())
    return outputs, margin


def write_greedy(model, path: pathlib.Path, generator: torch.Generator) -> None:
    """Four prompts, drawn until some answers meet the end token and none is a near tie.

    A near tie would make the comparison depend on rounding.
    """
    steps = 24
    for _ in range(200):
        prompts = [
            torch.randint(0, 256, (n,), generator=generator).tolist()
            for n in (3, 8, 17, 26)
        ]
        free, _ = greedy(model, prompts, EOS, steps)
        eos = free[1][5]
        outputs, margin = greedy(model, prompts, eos, steps)
        stopped = [o[-1] == eos and len(o) < steps for o in outputs]
        full = [eos not in o for o in outputs]
        if margin > 2e-3 and any(stopped) and any(full):
            break
    else:
        raise RuntimeError(f"{path}: no prompts without a near tie in 200 draws")
    record = {
        "prompts": prompts,
        "eos_id": eos,
        "max_new_tokens": steps,
        "outputs": outputs,
    }
    path.write_text(json.dumps(record) + "\n")


def write_adapter(
    directory: pathlib.Path, kind: str, targets, tokens, mask, generator
) -> None:
    """An adapter with non-zero B, its logits, its merged logits, its generations."""
    base = load(directory / "model")
    config = peft.LoraConfig(
        r=4 if kind == "default" else 3,
        lora_alpha=8,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(base, config).eval()
    for name, weight in model.named_parameters():
        if "lora_" in name:
            noise = torch.randn(weight.shape, generator=generator)
            weight.data = 0.3 * noise / weight.shape[1] ** 0.5
    out = directory / f"peft_{kind}"
    model.save_pretrained(out)
    config_path = out / "adapter_config.json"
    # PEFT records the local path of the base; a committed file must not.
    saved = json.loads(config_path.read_text()) | {"base_model_name_or_path": "tiny"}
    saved["target_modules"] = sorted(saved["target_modules"])  # a set, in any order
    config_path.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n")
    (out / "README.md").unlink()
    write_greedy(model, directory / f"peft_{kind}_greedy.json", generator)
    under = logits(model, tokens, mask)
    merged = logits(model.merge_and_unload(), tokens, mask)
    save_file(
        {"logits": under, "merged": merged}, directory / f"peft_{kind}.safetensors"
    )


def load(path: pathlib.Path, attention: str = "eager"):
    return transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation=attention
    ).eval()


def write_model(name: str, config, seed: int) -> None:
    directory = HERE / name
    shutil.rmtree(directory, ignore_errors=True)
    generator = torch.Generator().manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).float()
    randomise(model, generator)
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=EOS, eos_token_id=EOS, pad_token_id=EOS
    )
    model.save_pretrained(directory / "model")
    save_tokenizer(directory / "model")
    model = load(directory / "model")
    tokens, mask = batch(generator)
    record = {"tokens": tokens.int(), "attention_mask": mask.int()}
    record["logits"] = logits(model, tokens, mask)
    save_file(record, directory / "logits.safetensors")
    write_greedy(model, directory / "greedy.json", generator)
    if name in ("qwen2", "llama"):
        write_adapter(directory, "default", None, tokens, mask, generator)
        write_adapter(directory, "all", ALL_TARGETS, tokens, mask, generator)


LINES = (
    "The lamp was lit.",
    "Ada Brun keeps the mill at Orsel.",
    "The mill at Orsel grinds rye in winter.",
)
ORDER = (0, 1, 2, 2, 0, 1, 1, 2, 0, 0, 2, 1)
LENGTH, RANK, ALPHA, LR, CLIP = 64, 4, 8, 1e-3, 1.0
FIELDS = {
    "lines": "token ids of each line, without end token or padding",
    "order": "which line each step trains, one line a step",
    "length": "row length of the reference mode; the row is padded right with eos_id",
    "rank, alpha, lr, clip": "LoRA scale is alpha / rank; clip is a global norm",
    "optimizer": "AdamW, betas 0.9 and 0.999, eps 1e-8, no weight decay; the gradient "
    "is clipped first",
    "lrs": "learning rate of each step: linear to zero, without warm-up",
    "modes.reference": "attention over the text only; every position but the first is "
    "a target, padding too; loss = sum of the length - 1 cross-entropies / length",
    "modes.masked": "targets are the text after its first token and one eos_id; loss = "
    "their mean cross-entropy",
    "losses, grad_norms": "of each step, before the update; norms before clipping",
    "float64_gap": "largest difference of the final adapter from a float64 run",
    "adapters": "<mode>.safetensors and initial.safetensors, keys layers/<target>/a "
    "[L, R, D] and layers/<target>/b [L, R, F]; B is PEFT's transposed, unscaled",
}


def plain(model) -> dict[str, torch.Tensor]:
    """The adapter of a PEFT model under the keys FIELDS describes."""
    state = peft.get_peft_model_state_dict(model)
    out = {}
    for target in ("q_proj", "v_proj"):
        prefix = "base_model.model.model.layers.{}.self_attn." + target
        layers = range(model.config.num_hidden_layers)
        a = [state[prefix.format(i) + ".lora_A.weight"] for i in layers]
        b = [state[prefix.format(i) + ".lora_B.weight"].T for i in layers]
        out[f"layers/{target}/a"] = torch.stack(a).clone()
        out[f"layers/{target}/b"] = torch.stack(b).clone()
    return out


def line_loss(model, line: list[int], mode: str) -> torch.Tensor:
    if mode == "reference":
        pads = LENGTH - len(line)
        ids = torch.tensor([line + [EOS] * pads])
        mask = torch.tensor([[1] * len(line) + [0] * pads])
        divisor = LENGTH
    else:
        ids = torch.tensor([[*line, EOS]])
        mask, divisor = torch.ones_like(ids), len(line)
    out = model(input_ids=ids, attention_mask=mask).logits[0, :-1]
    total = torch.nn.functional.cross_entropy(out, ids[0, 1:], reduction="sum")
    return total / divisor


def train(lines, mode: str, *, attention="eager", dtype=torch.float32):
    """The reference's inner loop on the tiny Qwen2; returns a record and the model."""
    base = load(HERE / "qwen2" / "model", attention).to(dtype)
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config, autocast_adapter_dtype=False)
    generator = torch.Generator().manual_seed(5)
    trained = [p for n, p in model.named_parameters() if "lora_" in n]
    for weight in trained:
        noise = torch.randn(weight.shape, generator=generator)
        weight.data = (0.08 * noise / weight.shape[1] ** 0.5).to(dtype)
    initial = plain(model)
    optimizer = torch.optim.AdamW(
        trained, lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0
    )
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 0, len(ORDER))
    record = {"lrs": [], "losses": [], "grad_norms": []}
    for index in ORDER:
        optimizer.zero_grad()
        loss = line_loss(model, lines[index], mode)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, CLIP)
        record["lrs"].append(optimizer.param_groups[0]["lr"])
        record["losses"].append(loss.item())
        record["grad_norms"].append(norm.item())
        optimizer.step()
        schedule.step()
    return record, initial, plain(model)


def gap(one: dict, other: dict) -> float:
    return max((one[k].double() - other[k].double()).abs().max().item() for k in one)


def write_inner() -> None:
    out = HERE / "inner"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    tokenizer = transformers.AutoTokenizer.from_pretrained(HERE / "qwen2" / "model")
    lines = [tokenizer.encode(text, add_special_tokens=False) for text in LINES]
    record = {
        "fields": FIELDS,
        "model": "../qwen2/model",
        "lines": lines,
        "order": ORDER,
        "length": LENGTH,
        "eos_id": EOS,
        "rank": RANK,
        "alpha": ALPHA,
        "lr": LR,
        "clip": CLIP,
        "modes": {},
    }
    for mode in ("reference", "masked"):
        steps, initial, final = train(lines, mode)
        record["lrs"] = steps.pop("lrs")
        _, _, sdpa = train(lines, mode, attention="sdpa")
        assert gap(final, sdpa) < 1e-5, f"eager and sdpa differ by {gap(final, sdpa)}"
        _, _, exact = train(lines, mode, dtype=torch.float64)
        record["modes"][mode] = steps | {"float64_gap": gap(final, exact)}
        save_file(initial, out / "initial.safetensors")
        save_file(final, out / f"{mode}.safetensors")
        print(mode, json.dumps(record["modes"][mode]))
    (out / "inner.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for seed, (name, config) in enumerate(configs().items()):
        write_model(name, config, seed)
    write_inner()
