# SPDX-License-Identifier: Apache-2.0
"""Handlers of ONNX operators, by family. Every file here is imported; a new operator is one decorated function."""
