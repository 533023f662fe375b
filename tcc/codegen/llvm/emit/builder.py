# SPDX-License-Identifier: Apache-2.0
"""The emitter: one LLVM module of kernel functions, with loops, conditions and integer arithmetic that folds.

A kernel is `void name(ptr args, i64 first, i64 last)`: it does tasks first .. last - 1; slot i of `args` holds the
address of buffer i.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from tcc.codegen.llvm.emit.values import (
    F32,
    I1,
    I32,
    I64,
    PTR,
    VOID,
    Int,
    Literal,
    constant,
    element_of,
    lanes_of,
    vector,
    vector_constant,
)
from tcc.ir.targets import Target


class Var:
    """A local variable (promoted to registers by LLVM)."""

    def __init__(self, emitter: Emitter, type: Any) -> None:
        self.emitter = emitter
        self.type = type
        self.slot = emitter.alloca(type)

    def get(self) -> Any:
        return self.emitter.b.load(self.slot, typ=self.type)

    def set(self, value: Any) -> None:
        self.emitter.b.store(value, self.slot)


class Emitter:
    """Builds one module for one target."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.module = ir.Module(name="")
        self._intrinsics: dict[str, Any] = {}
        self._loops = 0
        self.function: Any = None
        self.b: Any = None

    # Functions.

    @contextmanager
    def kernel(self, name: str, buffers: int, scalars: int = 0) -> Iterator[tuple[list[Any], list[Any], Any, Any]]:
        """A kernel function: ([address of each buffer], [each i64 after them], first, last). Call within it what makes
        its body."""
        function = ir.Function(self.module, ir.FunctionType(VOID, [PTR, I64, I64]), name)
        self._attributes(function)
        args, first, last = function.args
        for arg, hint in zip(function.args, ("args", "first", "last"), strict=True):
            arg.name = hint
        self.function = function
        entry = function.append_basic_block("entry")
        self.b = ir.IRBuilder(entry)
        pointers: list[Any] = []
        numbers: list[Any] = []
        for i in range(buffers + scalars):
            slot = args if i == 0 else self.b.gep(args, [I64(i)], source_etype=I64, inbounds=True)
            if i < buffers:
                pointers.append(self.b.load(slot, typ=PTR, name=f"buffer{i}"))
            else:
                numbers.append(self.b.load(slot, typ=I64, name=f"s{i - buffers}"))
        yield pointers, numbers, first, last
        self.b.ret_void()

    def _attributes(self, function: Any) -> None:
        bits = 8 * self.target.vector_bytes
        for text in ("nounwind", f'"prefer-vector-width"="{bits}"', f'"min-legal-vector-width"="{bits}"'):
            set.add(function.attributes, text)

    @contextmanager
    def tasks(self, first: Any, last: Any) -> Iterator[Any]:
        """The loop over this call's tasks; gives the task's number."""
        with self.loop(first, last, name="task", unroll=False) as task:
            yield task

    def text(self) -> str:
        """The module as text."""
        return str(self.module)

    def intrinsic(self, name: str, result: Any, arguments: Sequence[Any]) -> Any:
        """A declared function (an LLVM intrinsic, or a C function)."""
        if name not in self._intrinsics:
            self._intrinsics[name] = ir.Function(self.module, ir.FunctionType(result, arguments), name)
        return self._intrinsics[name]

    def call(self, name: str, result: Any, arguments: Sequence[Any]) -> Any:
        """A call of a declared function, with the types of the arguments given."""
        return self.b.call(self.intrinsic(name, result, [a.type for a in arguments]), arguments)

    def overloaded(self, name: str, *arguments: Any) -> Any:
        """A call of an intrinsic that is overloaded on one type, that of all its arguments and its result."""
        type = arguments[0].type
        return self.call(f"llvm.{name}.{type_suffix(type)}", type, arguments)

    def helper(self, name: str, result: Any, arguments: Sequence[Any], body: Callable[..., Any]) -> Any:
        """An internal function made once per module by `body(*arguments) -> result`, for code too large to repeat."""
        if name not in self._intrinsics:
            function = ir.Function(self.module, ir.FunctionType(result, arguments), name)
            function.linkage = "internal"
            self._attributes(function)
            saved = self.function, self.b
            self.function, self.b = function, ir.IRBuilder(function.append_basic_block("entry"))
            self.b.ret(body(*function.args))
            self.function, self.b = saved
            self._intrinsics[name] = function
        return self._intrinsics[name]

    # Control.

    def alloca(self, type: Any, count: int = 1, align: int | None = None) -> Any:
        """Stack memory of the function, made in its entry block."""
        with self.b.goto_block(self.function.entry_basic_block):
            first = next(iter(self.function.entry_basic_block.instructions), None)
            if first is None:
                self.b.position_at_start(self.function.entry_basic_block)
            else:
                self.b.position_before(first)
            slot = self.b.alloca(type, size=None if count == 1 else count)
            slot.align = align
            slot.type = PTR
        return slot

    def var(self, value: Any) -> Var:
        """A variable with a first value."""
        v = Var(self, value.type)
        v.set(value)
        return v

    @contextmanager
    def loop(
        self, start: Int, stop: Int, step: int = 1, name: str = "i", unroll: bool | int | None = None
    ) -> Iterator[Any]:
        """`for i in range(start, stop, step)`, step > 0. A loop that is known to run once is emitted straight, with a
        Python int as index; one known not to run is emitted as dead code. `unroll`: False keeps LLVM from unrolling,
        a number asks for that factor."""
        if isinstance(start, int) and isinstance(stop, int) and start < stop <= start + step:
            yield start
            return
        before = self.b.block
        head = self.function.append_basic_block(f"{name}.head")
        body = self.function.append_basic_block(f"{name}.body")
        done = self.function.append_basic_block(f"{name}.done")
        low, high = self.i64(start), self.i64(stop)
        self.b.branch(head)
        self.b.position_at_end(head)
        index = self.b.phi(I64, name=name)
        index.add_incoming(low, before)
        self.b.cbranch(self.b.icmp_signed("<", index, high), body, done)
        self.b.position_at_end(body)
        yield index
        following = self.b.add(index, I64(step), flags=("nsw",))
        index.add_incoming(following, self.b.block)
        back = self.b.branch(head)
        if unroll is not None:
            back.set_metadata("llvm.loop", self._loop_id(unroll))
        self.b.position_at_end(done)

    @contextmanager
    def points(self, start: Int, stop: Int, extents: Sequence[Int], name: str = "row") -> Iterator[list[Int]]:
        """Row-major coordinates of the flat indices start .. stop - 1, in order: a loop over runs of the last dim, so
        that divisions are done once a run."""
        sizes = list(extents)
        while sizes and isinstance(sizes[-1], int) and sizes[-1] == 1:
            sizes.pop()
        ones: list[Int] = [0] * (len(extents) - len(sizes))
        if len(sizes) <= 1:
            with self.loop(start, stop, name=name, unroll=False) as flat:
                yield [flat, *ones] if sizes else ones
            return
        last = sizes[-1]
        flat = self.var(self.i64(start))
        head, body, done = (self.function.append_basic_block(f"{name}.{w}") for w in ("head", "body", "done"))
        self.b.branch(head)
        self.b.position_at_end(head)
        at = flat.get()
        self.b.cbranch(self.b.icmp_signed("<", at, self.i64(stop)), body, done)
        self.b.position_at_end(body)
        *outer, first = self.unflatten(at, sizes)
        end = self.minimum(self.add(first, self.sub(stop, at)), last)
        with self.loop(first, end, name=f"{name}.run", unroll=False) as inner:
            yield [*outer, inner, *ones]
        flat.set(self.add(at, self.sub(end, first)))
        self.b.branch(head)
        self.b.position_at_end(done)

    def _loop_id(self, unroll: bool | int) -> Any:
        hints: list[Any] = []
        if unroll is False:
            hint = [ir.MetaDataString(self.module, "llvm.loop.unroll.disable")]
            plain = [ir.MetaDataString(self.module, "llvm.loop.vectorize.enable"), I1(0)]
            hints.append(self.module.add_metadata(plain))
        elif unroll is True:
            hint = [ir.MetaDataString(self.module, "llvm.loop.unroll.enable")]
        else:
            hint = [ir.MetaDataString(self.module, "llvm.loop.unroll.count"), I32(int(unroll))]
        hints.append(self.module.add_metadata(hint))
        node = ir.MDValue(self.module, [], str(len(self.module.metadata)))
        node.operands = (node, *hints)
        return node

    @contextmanager
    def when(self, condition: Any, likely: bool | None = None) -> Iterator[None]:
        """Code under a condition: an i1, or a Python bool (False emits code that is never reached)."""
        if condition is True:
            yield
            return
        with self.b.if_then(self._i1(condition), likely=likely):
            yield

    @contextmanager
    def either(self, condition: Any) -> Iterator[tuple[Any, Any]]:
        """Two contexts: code where the condition holds, and where it does not."""
        with self.b.if_else(self._i1(condition)) as branches:
            yield branches

    def _i1(self, condition: Any) -> Any:
        return I1(int(condition)) if isinstance(condition, bool) else condition

    # Integers: Python ints fold, scalars are i64 and are spread where they meet vectors.

    def i64(self, value: Int) -> Any:
        """value as an LLVM i64 (a vector stays one)."""
        return I64(value) if isinstance(value, int) else value

    def _both(self, a: Int, b: Int) -> tuple[Any, Any]:
        known: Any = b if isinstance(a, int) else a
        type = known.type
        if not isinstance(a, int) and not isinstance(b, int) and a.type != b.type:
            wide = a if lanes_of(a.type) > 1 else b
            type = wide.type
            a, b = (self._fit(x, type) for x in (a, b))
        if isinstance(a, int):
            a = constant(type, a)
        if isinstance(b, int):
            b = constant(type, b)
        return a, b

    def _fit(self, x: Any, type: Any) -> Any:
        """An integer value in the element width and lanes of `type`."""
        element = element_of(type)
        mine = element_of(x.type)
        if mine.width != element.width:
            other = vector(element, lanes_of(x.type))
            x = self.b.trunc(x, other) if mine.width > element.width else self.b.sext(x, other)
        return self.splat(x, lanes_of(type))

    def add(self, a: Int, b: Int) -> Int:
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if isinstance(a, int) and a == 0:
            return b
        if isinstance(b, int) and b == 0:
            return a
        a, b = self._both(a, b)
        return self.b.add(a, b, flags=("nsw",))

    def sub(self, a: Int, b: Int) -> Int:
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        if isinstance(b, int) and b == 0:
            return a
        a, b = self._both(a, b)
        return self.b.sub(a, b, flags=("nsw",))

    def mul(self, a: Int, b: Int) -> Int:
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        for x, y in ((a, b), (b, a)):
            if isinstance(x, int) and x in (0, 1):
                return y if x else 0
        a, b = self._both(a, b)
        return self.b.mul(a, b, flags=("nsw",))

    def minimum(self, a: Int, b: Int) -> Int:
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self.overloaded("smin", *self._both(a, b))

    def maximum(self, a: Int, b: Int) -> Int:
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b)
        return self.overloaded("smax", *self._both(a, b))

    def floordiv(self, a: Int, b: Int, nonnegative: bool = False) -> Int:
        """⌊a / b⌋ for b > 0; `nonnegative` promises a ≥ 0."""
        if isinstance(a, int) and isinstance(b, int):
            return a // b
        if isinstance(b, int) and b == 1:
            return a
        if isinstance(b, int) and b & (b - 1) == 0:
            return self.b.ashr(*self._both(a, b.bit_length() - 1))
        a, b = self._both(a, self._divisor(b))
        if nonnegative:
            return self.b.udiv(a, b)
        quotient = self.b.sdiv(a, b)
        rest = self.b.sub(a, self.b.mul(quotient, b))
        below = self.b.icmp_signed("<", rest, constant(rest.type, 0))
        return self.b.sub(quotient, self.b.zext(below, quotient.type))

    def mod(self, a: Int, b: Int, nonnegative: bool = False) -> Int:
        """a - b⌊a / b⌋ for b > 0."""
        if isinstance(a, int) and isinstance(b, int):
            return a % b
        if isinstance(b, int) and b & (b - 1) == 0:
            return self.b.and_(*self._both(a, b - 1))
        if nonnegative:
            return self.b.urem(*self._both(a, self._divisor(b)))
        return self.sub(a, self.mul(self.floordiv(a, b), b))

    def _divisor(self, b: Int) -> Int:
        """An extent that data decide may be 0, and its tensor empty: whatever is divided by it is not used, but must
        not trap."""
        return b if isinstance(b, int) else self.maximum(b, 1)

    def less(self, a: Int, b: Int) -> Any:
        """a < b (signed): a Python bool where known, else an i1."""
        if isinstance(a, int) and isinstance(b, int):
            return a < b
        return self.b.icmp_signed("<", *self._both(a, b))

    def equal(self, a: Int, b: Int) -> Any:
        if isinstance(a, int) and isinstance(b, int):
            return a == b
        return self.b.icmp_signed("==", *self._both(a, b))

    def within(self, a: Int, extent: Int) -> Any:
        """0 ≤ a < extent, by one unsigned comparison."""
        if isinstance(a, int) and isinstance(extent, int):
            return 0 <= a < extent
        if isinstance(extent, int):
            return self.b.icmp_unsigned("<", a, constant(a.type, extent))  # pyright: ignore[reportAttributeAccessIssue]
        a, extent = self._both(a, extent)
        return self.b.icmp_unsigned("<", a, extent)

    def both(self, a: Any, b: Any) -> Any:
        """Logical and of conditions; Python bools fold, scalars are spread where they meet vectors."""
        if isinstance(a, bool):
            return b if a else False
        if isinstance(b, bool):
            return a if b else False
        lanes = max(lanes_of(a.type), lanes_of(b.type))
        return self.b.and_(self.splat(a, lanes), self.splat(b, lanes))

    def unflatten(self, index: Int, extents: Sequence[Int]) -> list[Int]:
        """Row-major coordinates of a flat index ≥ 0."""
        out: list[Int] = []
        for i, extent in enumerate(reversed(extents)):
            last = i == len(extents) - 1
            if isinstance(extent, int) and extent == 1:
                out.append(0)
            elif last:
                out.append(index)
            else:
                out.append(self.mod(index, extent, nonnegative=True))
                index = self.floordiv(index, extent, nonnegative=True)
        return out[::-1]

    # Vectors.

    def splat(self, value: Any, lanes: int) -> Any:
        """A scalar in every lane; a vector of that many lanes as it is."""
        if lanes == 1 or lanes_of(value.type) == lanes:
            return value
        assert lanes_of(value.type) == 1, f"{value.type} cannot have {lanes} lanes"
        if isinstance(value, ir.Constant):
            return Literal(vector(value.type, lanes), f"splat ({value.type} {value.get_reference()})")
        type = vector(value.type, lanes)
        undefined = Literal(type, "poison")
        one = self.b.insert_element(undefined, value, I32(0))
        return self.b.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))

    def iota(self, lanes: int, element: Any = I32) -> Any:
        """(0, 1, 2, …)."""
        return vector_constant(vector(element, lanes), list(range(lanes)))

    def first_lanes(self, count: Int, lanes: int) -> Any:
        """The mask of the first `count` (an i64) lanes."""
        if lanes == 1:
            return self.less(0, count)
        if isinstance(count, int):
            return vector_constant(vector(I1, lanes), [int(lane < count) for lane in range(lanes)])
        small = self.b.trunc(self.minimum(count, lanes), I32)
        return self.b.icmp_signed("<", self.iota(lanes), self.splat(small, lanes))

    def extract(self, value: Any, lane: int) -> Any:
        return value if lanes_of(value.type) == 1 else self.b.extract_element(value, I32(lane))

    def shuffle(self, a: Any, b: Any, lanes: Sequence[int]) -> Any:
        """Lanes of a (0 …) and b (after a's)."""
        return self.b.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes)))

    def halves(self, value: Any) -> tuple[Any, Any]:
        """The lower and the upper half of a vector of at least 2 lanes."""
        n = lanes_of(value.type)
        if n == 2:
            return self.extract(value, 0), self.extract(value, 1)
        return self.shuffle(value, value, range(n // 2)), self.shuffle(value, value, range(n // 2, n))

    def fold(self, value: Any, combine: Callable[[Any, Any], Any]) -> Any:
        """All lanes combined pairwise (halves first) into a scalar; lanes must be a power of two."""
        while lanes_of(value.type) > 1:
            value = combine(*self.halves(value))
        return value

    def select(self, condition: Any, a: Any, b: Any) -> Any:
        """a or b by a condition, which may be a Python bool; lanes are spread as needed."""
        if isinstance(condition, bool):
            return a if condition else b
        lanes = max(lanes_of(condition.type), lanes_of(a.type), lanes_of(b.type))
        if lanes_of(condition.type) == 1 and not (lanes_of(a.type) == lanes_of(b.type) == 1):
            return self.b.select(condition, self.splat(a, lanes), self.splat(b, lanes))
        return self.b.select(self.splat(condition, lanes), self.splat(a, lanes), self.splat(b, lanes))

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a·b + c, with one rounding where the target can; lanes are spread as needed."""
        lanes = max(lanes_of(x.type) for x in (a, b, c))
        return self.overloaded("fmuladd", *(self.splat(x, lanes) for x in (a, b, c)))

    def f32(self, value: float, like: Any = None) -> Any:
        """An f32 literal, with the lanes of another value."""
        return constant(F32 if like is None else vector(F32, lanes_of(like.type)), value)

    def true(self, lanes: int) -> Any:
        return constant(vector(I1, lanes), True)


def type_suffix(type: Any) -> str:
    """How intrinsics name a type: f32, v16f32, i64, p0 …"""
    if isinstance(type, ir.VectorType):
        return f"v{type.count}{type_suffix(type.element)}"
    if isinstance(type, ir.PointerType):
        return "p0"
    if isinstance(type, ir.IntType):
        return f"i{type.width}"
    return {F32: "f32", F64_TYPE: "f64"}.get(type, "f16")


F64_TYPE = ir.DoubleType()
