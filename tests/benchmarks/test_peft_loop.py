"""The baseline's loop: lines as laid, and every step against the Trainer's own."""

import importlib
import json
import os
import subprocess

import pytest


@pytest.fixture(scope="module")
def loop(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module("peft_loop")


@pytest.fixture(scope="module")
def torch_python():
    """An interpreter with torch, transformers and peft; skips without one."""
    python = os.environ.get("SEAL_TORCH_PYTHON")
    if not python:
        pytest.skip(
            "SEAL_TORCH_PYTHON is not set; set it to a Python interpreter that has "
            "torch, transformers and peft"
        )
    return python


def test_an_unpadded_line_ends_in_one_end_of_text(loop):
    assert loop.lay([7, 8, 9], loop.Settings()) == ([7, 8, 9, 0], 4)


def test_a_padded_line_is_filled_with_end_of_text_that_is_no_key(loop):
    padded = loop.Settings(mode="padded", pad_to=5)
    assert loop.lay([7, 8, 9], padded) == ([7, 8, 9, 0, 0], 3)
    assert loop.lay([1, 2, 3, 4, 5, 6], padded) == ([1, 2, 3, 4, 5], 5)


def test_each_epoch_trains_every_line_in_its_own_order(loop):
    settings = loop.Settings(epochs=20)
    steps = loop.order(4, settings, seed=1)
    epochs = [steps[i : i + 4] for i in range(0, 80, 4)]
    assert [sorted(epoch) for epoch in epochs] == [[0, 1, 2, 3]] * 20
    assert len(set(map(tuple, epochs))) > 5
    assert steps == loop.order(4, settings, seed=1)
    assert steps != loop.order(4, settings, seed=2)


# Two trainings by the benchmark's loop, one by the Trainer that the reference uses, the
# loss of a fresh adapter by hand.
PROBE = """
import json, tempfile, torch, transformers, common, peft_loop as b
settings = b.Settings(
    mode=MODE, pad_to=12, rank=4, alpha=8.0, learning_rate=2e-2, clip=CLIP
)
shape = common.SHAPES["tiny"]
model, wrapper = b.build(shape, settings, device="cpu")
frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
rows = b.rows_of([5, 9], shape.vocab, settings, seed=0, device="cpu")
indices = [0, 1] * 10 + [0]
runs = []
for _ in range(2):
    torch.manual_seed(1)
    ends = b.train(model, rows, indices, settings, total=21, device="cpu")
    runs.append([float(loss) for loss in ends])
    trained = [p.detach().clone() for p in model.parameters() if p.requires_grad]
now = dict(model.named_parameters())
same = all(torch.equal(now[name], p) for name, p in frozen.items())

torch.manual_seed(1)
b.reset(model)
logits = model(**{k: v for k, v in rows[0].items() if k != "labels"}).logits[0, :-1]
by_hand = torch.nn.functional.cross_entropy(logits, rows[0]["labels"][0, 1:])

class InOrder(transformers.Trainer):
    def _get_train_sampler(self, *args):
        return torch.utils.data.SequentialSampler(self.train_dataset)

with tempfile.TemporaryDirectory() as folder:
    arguments = transformers.TrainingArguments(
        output_dir=folder, per_device_train_batch_size=1, num_train_epochs=1,
        learning_rate=2e-2, max_grad_norm=CLIP, weight_decay=0.0, report_to=[],
        save_strategy="no", use_cpu=True, disable_tqdm=True,
    )
    lines = [{k: v[0] for k, v in rows[i].items()} for i in indices]
    InOrder(model=wrapper, args=arguments, train_dataset=lines).train()
theirs = [p.detach() for p in model.parameters() if p.requires_grad]
apart = max(float((a - t).abs().max()) for a, t in zip(trained, theirs))
moved = max(float(p.abs().max()) for p in trained)
print(json.dumps([runs, same, float(by_hand), len(logits), apart, moved]))
"""


# Below the norms of most steps and above those of some.
CLIP = "0.02"


@pytest.mark.parametrize("mode, targets", [("unpadded", 5), ("padded", 11)])
def test_the_loop_trains_what_the_references_trainer_trains(
    torch_python, root, mode, targets
):
    done = subprocess.run(
        [torch_python, "-c", PROBE.replace("MODE", repr(mode)).replace("CLIP", CLIP)],
        cwd=root / "benchmarks",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    runs, same, by_hand, positions, apart, moved = answer
    first, last = runs[0]
    # Nothing is left of the adapter before: the second run is the first again.
    assert runs[1] == [first, last]
    assert last < first
    assert same
    # Each position but the last has a target, pads too where there are any.
    assert positions == targets
    assert first == pytest.approx(by_hand, rel=1e-5)
    # All 21 steps: schedule, clip, AdamW.
    assert moved > 0.1
    assert apart < 1e-5
