# SPDX-License-Identifier: Apache-2.0
"""tcc: an open ONNX inference compiler."""
