# SPDX-License-Identifier: Apache-2.0
"""The target on which tests run engines: `cpu`, or what TCC_TEST_TARGET says (`native` on a machine with a GPU)."""

import os

TARGET = os.environ.get("TCC_TEST_TARGET", "cpu")
