"""Reading a compiled program's text: what is in a line, and what is around it."""

import importlib

import pytest

TEXT = """\
HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[8,4]{1,0})->f32[8]}

%add.1 (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%body (t.0: (s32[], bf16[2,3])) -> (s32[], bf16[2,3]) {
  %t.0 = (s32[], bf16[2,3]{1,0:T(8,128)(2,1)S(1)}) parameter(0)
  %i = s32[] get-tuple-element(%t.0), index=0
  %x = bf16[2,3]{1,0:T(8,128)(2,1)} get-tuple-element(%t.0), index=1
  ROOT %out = (s32[], /*index=1*/bf16[2,3]{1,0}) tuple(%i, %x)
}

ENTRY %main (p: f32[8,4], q: (s32[], bf16[2,3])) -> f32[8] {
  %p = f32[8,4]{1,0} parameter(0), metadata={op_name="x[\\"a (b\\"]"}
  %q = (s32[], bf16[2,3]{1,0}) parameter(1)
  %zero = f32[] constant(0)
  %loop = (s32[], bf16[2,3]{1,0}) while(%q), condition=%cond.2, body=%body, \
metadata={op_name="jit(f)/while"}, backend_config={"known_trip_count":{"n":"12"}}
  %cc = (f32[8,4]{1,0}, s8[64]{0}) custom-call(%p), custom_call_target="__cublas$gemm"
  ROOT %r = f32[8]{0} reduce(%p, %zero), dimensions={1}, to_apply=%add.1, \
metadata={op_name="jit(f)/sum"}
}
"""


@pytest.fixture(scope="module")
def hlo(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))
        yield importlib.import_module("hlo_text")


def test_computations_and_their_instructions_are_found(hlo):
    program = hlo.parse(TEXT)
    assert list(program.computations) == ["add.1", "body", "main"]
    assert program.entry.name == "main"
    assert [one.op for one in program.entry] == [
        "parameter",
        "parameter",
        "constant",
        "while",
        "custom-call",
        "reduce",
    ]
    assert program.entry.root.name == "r"
    assert [one.name for one in program["body"].operands(program["body"].root)] == [
        "i",
        "x",
    ]
    assert set(program.entry.parameters) == {0, 1}


def test_shapes_are_read_through_layouts_and_tuples(hlo):
    body = hlo.parse(TEXT)["body"]
    assert list(map(str, body["t.0"].shapes)) == ["s32[]", "bf16[2,3]"]
    assert body["t.0"].bytes == 4 + 2 * 2 * 3
    assert (body["x"].shapes[0].dims, body["x"].elements) == ((2, 3), 6)
    assert list(map(str, body.root.shapes)) == ["s32[]", "bf16[2,3]"]
    assert body["x"].shapes[0].is_float and not body["i"].shapes[0].is_float


@pytest.mark.parametrize(
    "dtype, size", [("pred", 1), ("s4", 0.5), ("f8e4m3fn", 1), ("bf16", 2), ("c64", 8)]
)
def test_bytes_of_a_type(hlo, dtype, size):
    assert hlo.Shape(dtype, (3, 2)).bytes == 6 * size


def test_attributes_are_read(hlo):
    entry = hlo.parse(TEXT).entry
    loop, call, reduce = entry["loop"], entry["cc"], entry["r"]
    assert (loop.trips, loop.called("body"), loop.called("condition")) == (
        12,
        "body",
        "cond.2",
    )
    assert (reduce.trips, reduce.called("to_apply")) == (None, "add.1")
    assert reduce.numbers("dimensions") == (1,)
    assert reduce.op_name == "jit(f)/sum"
    assert (call.target, reduce.target) == ("__cublas$gemm", "")
    assert entry["p"].op_name == 'x[\\"a (b\\"]'


def test_users_are_known_by_place(hlo):
    users = hlo.parse(TEXT).entry.users
    assert [(one.name, place) for one, place in users["p"]] == [("cc", 0), ("r", 0)]
    assert [(one.name, place) for one, place in users["zero"]] == [("r", 1)]


def test_branches_of_both_spellings(hlo):
    line = "  %c = f32[] conditional(%i, %a, %b), "
    listed = "branch_computations={%one.1, %two.2}"
    named = "true_computation=%yes, false_computation=%no"
    for text, want in ((listed, ("one.1", "two.2")), (named, ("yes", "no"))):
        whole = f"ENTRY %m (i: s32[]) -> f32[] {{\n{line}{text}\n}}\n"
        assert hlo.parse(whole).entry["c"].branches == want


def test_an_instruction_knows_the_functions_it_comes_from(hlo):
    tables = """\

FileNames
1 "/some/where/outer.py"
2 "/some/where/inner.py"

FunctionNames
1 "run"
2 "step.<locals>.body"

FileLocations
1 {file_name_id=1 function_name_id=1 line=21 end_line=21}
2 {file_name_id=2 function_name_id=2 line=3 end_line=3}
3 {file_name_id=2 function_name_id=1 line=7 end_line=7}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=2}

"""
    head, rest = TEXT.split("\n", 1)
    program = hlo.parse(head + tables + rest.replace('sum"}', 'sum" stack_frame_id=3}'))
    assert program.frames[2] == ("outer.py:run", "inner.py:step.<locals>.body")
    place = "jit(f)/sum < outer.py:run > inner.py:run"
    assert program.place(program.entry["r"]) == place
    assert program.place(program.entry["loop"]) == "jit(f)/while"
    assert hlo.parse(TEXT).place(program.entry["r"]) == "jit(f)/sum"


@pytest.mark.parametrize(
    "text, rule",
    [
        ("no program", "must have an ENTRY computation"),
        ("ENTRY %m (i: s32[]) -> x9[] {\n  %a = x9[2] add(%i)\n}", "type x9 of"),
        ("ENTRY %m (i: s32[]) -> f32[] {\n  %a = f32[] add(%i\n}", "must close"),
    ],
)
def test_what_is_no_program_is_refused(hlo, text, rule):
    with pytest.raises(ValueError, match=rule):
        hlo.parse(text)
