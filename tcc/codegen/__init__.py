# SPDX-License-Identifier: Apache-2.0
"""Code generation: kernel templates, their spaces, emitters and compilers for each target."""
