# SPDX-License-Identifier: Apache-2.0
"""The process that runs LLVM for `tcc.codegen.llvm.compile`: a request on stdin, an answer on stdout, until stdin ends.

A request is its length (u64) and JSON; an answer is whether it failed (u8), a length (u64) and the object, the text
asked for or the message. Run by path, so it imports nothing of tcc.
"""

import json
import os
import struct
import sys
from typing import Any, BinaryIO

import llvmlite.binding as llvm


def _compile(request: dict[str, Any]) -> bytes:
    module = llvm.parse_assembly(request["ir"])
    module.verify()
    module.triple = request["triple"]
    machine = llvm.Target.from_triple(request["triple"]).create_target_machine(
        cpu=request["cpu"], features=request["features"], opt=request["opt"], reloc="pic", codemodel="small"
    )
    module.data_layout = str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=request["opt"])
    options.loop_vectorization = options.slp_vectorization = request["opt"] >= 2
    options.loop_interleaving = options.loop_unrolling = request["opt"] >= 2
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    if request["emit"] == "llvm":
        return str(module).encode()
    if request["emit"] == "assembly":
        return machine.emit_assembly(module).encode()
    return machine.emit_object(module)


def _read(stream: BinaryIO, size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        sys.exit(0)
    return content


def main() -> None:
    requests = os.fdopen(0, "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever LLVM prints must not land among the answers
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.initialize_native_asmparser()
    while True:
        (size,) = struct.unpack("<Q", _read(requests, 8))
        request = json.loads(_read(requests, size))
        try:
            failed, content = False, _compile(request)
        except (RuntimeError, ValueError) as error:
            failed, content = True, " ".join(str(error).split()).encode()
        answers.write(struct.pack("<?Q", failed, len(content)) + content)
        answers.flush()


if __name__ == "__main__":
    main()
