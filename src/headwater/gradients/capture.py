"""Per-example gradients from one forward and one backward pass, without ever building one.

For a layer with input a_t and output gradient d_t the gradient of an example is sum_t d_t a_t^T.
Hooks take a_t as it passes forward and d_t as it passes backward and hand both to a `Sink`, which
projects them at once. No parameter requires a gradient: the outputs of the first captured layers
are made the roots of the graph, so the backward pass stops there and no weight gradient exists.
Inputs that several layers share (q, k, v; gate, up) are projected together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch

from headwater.engine.errors import InputError
from headwater.gradients.parameters import MATRICES, Parameter, Use

if TYPE_CHECKING:
    from headwater.tasks.task import Task

Factor = torch.Tensor


class Sink(Protocol):
    """What becomes of the captured factors of each parameter; all tensors lead with the batch."""

    def inputs(self, parameters: Sequence[Parameter], a: Factor) -> list[Any]:
        """Layer input a [batch, tokens, in], once for each of the parameters it belongs to."""
        ...

    def linear(self, parameter: Parameter, kept: Any, d: Factor) -> None:
        """Output gradient d [batch, tokens, out], with what `inputs` kept."""
        ...

    def bias(self, parameter: Parameter, d: Factor) -> None:
        """Output gradient d [batch, tokens, out] of a layer with this bias."""
        ...

    def embedding(self, parameter: Parameter, ids: torch.Tensor, d: Factor) -> None:
        """Rows ids [batch, tokens] and their gradients d [batch, tokens, in]."""
        ...

    def whole(self, parameter: Parameter, gradient: torch.Tensor) -> None:
        """An explicit gradient [batch, rows, columns]."""
        ...


class Capture:
    """Hooks on the modules that use the chosen parameters.

    Use `with capture.on(sink, size): loss.sum().backward()`. The model must be in eval mode with
    frozen parameters (`tasks.task.evaluating`).
    """

    def __init__(self, task: Task, uses: Sequence[Use]) -> None:
        self.task = task
        self._modules = dict(task.model.named_modules())
        self._uses: dict[str, list[Use]] = {}
        for use in uses:
            self._uses.setdefault(use.module, []).append(use)
        self._sharing: dict[
            str, list[str]
        ] = {}  # leader -> modules with the same input, itself first
        self._positional: set[str] = set()  # embeddings looked up once for the whole batch
        self.repeated: set[str] = set()  # modules called more than once in a forward pass
        self.unused: list[str] = []  # modules that the first forward pass did not call
        self._sink: Sink | None = None
        self._size = 0
        self._shared: tuple[torch.Tensor, dict[str, Any]] | None = None

    @contextmanager
    def on(self, sink: Sink, size: int) -> Generator[None]:
        """Capture into `sink` a forward and backward pass over `size` examples."""
        self._sink, self._size = sink, size
        handles: list[Any] = []
        try:
            for name in self._uses:
                hook = self._hook(name)
                module = self._modules[name]
                handles.append(module.register_forward_hook(hook, with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._sink = self._shared = None

    def learn_sharing(self, forward: Callable[[], object]) -> None:
        """A forward pass of one example that notes how the layers are called.

        Which linear layers have the same input tensor, which modules are called several times or
        never, which embeddings look up positions. Done once before any features are made, so that
        every batch is computed alike.
        """
        order: list[tuple[str, torch.Tensor]] = []

        def note(name: str) -> Callable[..., None]:
            def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
                order.append((name, _first(args, kwargs)))

            return hook

        with torch.no_grad():
            forward()  # a first call may run the model more than once (probes)
        handles = [
            self._modules[n].register_forward_hook(note(n), with_kwargs=True) for n in self._uses
        ]
        try:
            with torch.no_grad():
                forward()
        finally:
            for handle in handles:
                handle.remove()
        calls = Counter(name for name, _ in order)
        self.repeated = {name for name, count in calls.items() if count > 1}
        self.unused = [name for name in self._uses if not calls[name]]
        groups: dict[int, list[str]] = {}
        for name, tensor in order:
            kind = self._uses[name][0].kind
            if kind in MATRICES and kind != "conv2d":
                groups.setdefault(id(tensor), []).append(name)
            elif kind == "embedding" and tensor.dim() == 1 and len(tensor) > 1:
                self._positional.add(name)
        self._sharing = {
            g[0]: g for g in groups.values() if len(g) > 1 and not self.repeated & set(g)
        }

    def _hook(self, name: str) -> Callable[..., torch.Tensor | None]:
        uses = self._uses[name]
        weight = next((u.parameter for u in uses if u.kind in MATRICES), None)
        bias = next((u.parameter for u in uses if u.kind == "bias"), None)
        table = next((u.parameter for u in uses if u.kind == "embedding"), None)
        if uses[0].kind == "other":
            return self._other_hook(name, uses)

        def hook(
            module: torch.nn.Module,
            args: tuple[Any, ...],
            kwargs: dict[str, Any],
            output: torch.Tensor,
        ) -> torch.Tensor | None:
            sink, given = self._sink, _first(args, kwargs)
            if sink is None:
                return None
            kept = self._inputs(name, weight, given, sink) if weight is not None else None
            ids = None
            if table is not None and self._is_shared(name, given):
                # Positions: looked up once, used by all. A copy for each keeps examples apart.
                given = given.reshape(1, -1).expand(self._size, -1)
                output = output.reshape(1, -1, output.shape[-1]).expand(self._size, -1, -1)
                ids, output = given, output.clone()
            elif table is not None:
                ids = self._by_example(given, 1)
            padding = getattr(module, "padding_idx", None)

            def backward(gradient: torch.Tensor) -> None:
                d = self._by_example(_positions(module, gradient.detach()), 2)
                if weight is not None:
                    sink.linear(weight, kept, d)
                if bias is not None:
                    sink.bias(bias, d)
                if table is not None and ids is not None:
                    if padding is not None:  # its row is never trained
                        d = d.masked_fill((ids == padding)[:, :, None], 0)
                    sink.embedding(table, ids, d)

            return _rooted(output, backward)

        return hook

    def _is_shared(self, name: str, ids: torch.Tensor) -> bool:
        """Whether one look-up serves the whole batch: ids [1, tokens] or, learnt, [tokens]."""
        if ids.dim() == 1:
            return name in self._positional
        return ids.dim() == 2 and len(ids) == 1 and self._size > 1

    def _inputs(self, name: str, weight: Parameter, given: torch.Tensor, sink: Sink) -> Any:
        """What the sink keeps of this layer's input; projected together where it is shared."""
        if self._shared is not None and self._shared[0] is given and name in self._shared[1]:
            return self._shared[1].pop(name)
        self._shared = None
        a = self._by_example(_patches(self._modules[name], given.detach()), 2)
        group = self._sharing.get(name)
        if group is None:
            return sink.inputs([weight], a)[0]
        kept = sink.inputs([self._weight(member) for member in group], a)
        self._shared = (given, dict(zip(group[1:], kept[1:], strict=True)))
        return kept[0]

    def _weight(self, name: str) -> Parameter:
        return next(u.parameter for u in self._uses[name] if u.kind in MATRICES)

    def _apart(self, tensor: torch.Tensor) -> torch.Tensor:
        """[batch, 1, ...], or [batch, n, ...] of a tensor whose rows are n to each example."""
        size = self._size
        if tensor.dim() < 1 or not len(tensor) or len(tensor) % size:
            raise self._mixed(tensor)
        return tensor.reshape(size, len(tensor) // size, *tensor.shape[1:])

    def _mixed(self, tensor: torch.Tensor) -> InputError:
        return InputError(
            "A captured layer does not keep examples apart",
            expected=f"inputs whose first dimension is the batch ({self._size})",
            found=f"shape {list(tensor.shape)}",
            do="leave such layers (mixtures of experts) out with a parameters filter",
        )

    def _by_example(self, tensor: torch.Tensor, dims: int) -> torch.Tensor:
        """[batch, tokens] (dims 1) or [batch, tokens, features] (dims 2) of any leading shape."""
        size = self._size
        if tensor.shape[0] != size:
            leading = tensor.shape[0] if tensor.dim() >= dims else 0
            if not leading or leading % size or tensor.dim() != dims:
                raise self._mixed(tensor)
        if dims == 1:
            return tensor.reshape(size, -1)
        return tensor if tensor.dim() == 3 else tensor.reshape(size, -1, tensor.shape[-1])

    def _other_hook(self, name: str, uses: list[Use]) -> Callable[..., torch.Tensor | None]:
        """Any module: its own vector-Jacobian product, example by example (norms, convolutions)."""
        module = self._modules[name]
        mine = {use.attribute: use.parameter for use in uses}

        def hook(
            _: torch.nn.Module,
            args: tuple[Any, ...],
            kwargs: dict[str, Any],
            output: Any,
        ) -> torch.Tensor | None:
            sink = self._sink
            if sink is None:
                return None
            inputs = [*args, *kwargs.values()]
            if not isinstance(output, torch.Tensor) or len(inputs) != 1:
                raise InputError(
                    f"Module {name} ({type(module).__name__}) can't be attributed",
                    expected="a module of one input tensor and one output tensor",
                    do="leave it out with parameters='linear' or a filter",
                )
            given = self._apart(inputs[0].detach())

            def backward(gradient: torch.Tensor) -> None:
                self._sink = None  # the hooks of modules inside must not see the inner calls
                try:
                    d = self._apart(gradient.detach())
                    found = _own_gradients(module, list(mine), given, d)
                finally:
                    self._sink = sink
                for attribute, parameter in mine.items():
                    g = found[attribute].reshape(self._size, parameter.rows, parameter.columns)
                    sink.whole(parameter, g)

            return _rooted(output, backward)

        return hook


def _patches(module: torch.nn.Module, given: torch.Tensor) -> torch.Tensor:
    """A layer's input by position: of a convolution [batch, positions, in * kernel], else as is."""
    if not isinstance(module, torch.nn.Conv2d):
        return given
    sizes: Any = (module.kernel_size, module.dilation, module.padding, module.stride)
    return torch.nn.functional.unfold(given, *sizes).transpose(1, 2)


def _positions(module: torch.nn.Module, gradient: torch.Tensor) -> torch.Tensor:
    """The output gradient likewise: of a convolution [batch, positions, out]."""
    if not isinstance(module, torch.nn.Conv2d):
        return gradient
    return gradient.flatten(2).transpose(1, 2)


def _rooted(output: torch.Tensor, backward: Callable[[torch.Tensor], None]) -> torch.Tensor | None:
    """Call `backward` with the output's gradient; an output without a graph becomes a root."""
    if output.requires_grad:
        output.register_hook(backward)
        return None
    # The clone lets later in-place operations (ReLU) write to it: a leaf would forbid them.
    root = output.detach().requires_grad_(True).clone()
    root.register_hook(backward)
    return root


def _own_gradients(
    module: torch.nn.Module, names: list[str], given: torch.Tensor, gradient: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Per-example gradients [batch, ...] of a module's own parameters; input [batch, n, ...]."""
    from torch.func import functional_call, vjp, vmap

    values = {name: getattr(module, name).detach() for name in names}

    def one(x: torch.Tensor, g: torch.Tensor) -> dict[str, torch.Tensor]:
        def run(own: dict[str, torch.Tensor]) -> torch.Tensor:
            return functional_call(module, own, (x,))

        return vjp(run, values)[1](g)[0]

    return vmap(one)(given, gradient)


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """The module's input, given by position or by name."""
    return args[0] if args else next(iter(kwargs.values()))
