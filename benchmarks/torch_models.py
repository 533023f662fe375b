# SPDX-License-Identifier: Apache-2.0
# pyright: reportMissingImports=false
"""The zoo's networks as PyTorch modules (timm and transformers): what is exported, and the peer that tcc is timed
against.

PyTorch, timm and transformers are no dependencies of tcc; only this module and the scripts that name it need them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import timm
import torch
import transformers

VISION = (
    "resnet50",
    "mobilenetv3_large_100",
    "vit_base_patch16_224",
    "convnext_tiny",
    "efficientnet_b0",
    "swin_tiny_patch4_window7_224",
)
LANGUAGE = ("bert_base", "bert_base_sdpa", "gpt2")
TOKENS = 128


@dataclass(frozen=True)
class Network:
    """One network: the module whose `forward` takes `inputs` in order and gives `outputs` in order."""

    name: str
    module: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: tuple[Any, ...]  # tensors with a batch of 2, so that an exporter cannot take the batch for a constant


class _Bert(torch.nn.Module):
    """BertModel with positional inputs and a plain tuple as its result."""

    def __init__(self, attention: str):
        super().__init__()
        self.bert = transformers.BertModel(transformers.BertConfig(attn_implementation=attention))

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        out = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return out.last_hidden_state, out.pooler_output


class _Gpt2(torch.nn.Module):
    """GPT2LMHeadModel giving the logits of every position, without a key/value cache."""

    def __init__(self):
        super().__init__()
        self.gpt2 = transformers.GPT2LMHeadModel(transformers.GPT2Config(attn_implementation="sdpa", use_cache=False))

    def forward(self, input_ids: Any) -> Any:
        return self.gpt2(input_ids=input_ids, use_cache=False).logits


def network(name: str, rival: bool = False) -> Network:
    """The network called `name`, in evaluation mode, with PyTorch's own random weights.

    A `rival` has sdpa attention always: BERT's eager masks cannot be captured in a CUDA graph, and are slower.
    """
    if name in VISION:
        image = torch.zeros(2, 3, 224, 224)
        return Network(name, timm.create_model(name, pretrained=False).eval(), ("x",), ("logits",), (image,))
    ids = torch.zeros(2, TOKENS, dtype=torch.int64)
    if name in ("bert_base", "bert_base_sdpa"):
        module = _Bert("sdpa" if rival or name.endswith("sdpa") else "eager").eval()
        inputs = ("input_ids", "attention_mask", "token_type_ids")
        # Three tensors: an exporter takes one tensor given twice for one input.
        example = (ids, torch.ones_like(ids), torch.zeros_like(ids))
        return Network(name, module, inputs, ("last_hidden_state", "pooler_output"), example)
    if name == "gpt2":
        return Network(name, _Gpt2().eval(), ("input_ids",), ("logits",), (ids,))
    raise KeyError(f"no network is called {name!r}: {', '.join(VISION + LANGUAGE)}")


def load_weights(module: Any, weights: dict[str, np.ndarray]) -> None:
    """Copy `weights` (by initialiser name, which is the parameter's name) into `module`, in place.

    Raises KeyError if a parameter or floating-point buffer that the module saves is not among them: a module of which
    a part keeps PyTorch's own random values would be compared with another network. Tied parameters need one name only.
    """
    own = module.state_dict(keep_vars=True)
    given = {own[name].data_ptr(): name for name in weights}
    for name, tensor in own.items():
        if not tensor.is_floating_point():
            continue
        source = given.get(tensor.data_ptr())
        if source is None:
            raise KeyError(f"no weights are given for {name} {tuple(tensor.shape)}")
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(weights[source], dtype=np.float32)))
