// RUN: tcc-opt %s | filecheck %s
// RUN: tcc-opt %s --print-op-generic | filecheck %s --check-prefix=GENERIC
// RUN: tcc-opt %s --no-locations | filecheck %s --check-prefix=NOLOC
// RUN: tcc-opt %s --passes= --dump-dir=%t/dump | filecheck %s
// RUN: not tcc-opt %s --passes=no-such-pass 2>&1 | filecheck %s --check-prefix=NOPASS
// RUN: not tcc-opt %s --passes= --print-ir-after=no-such-pass 2>&1 | filecheck %s --check-prefix=NOPASS
// RUN: not tcc-opt %s --run-reproducer --passes=x 2>&1 | filecheck %s --check-prefix=BOTH
// RUN: not tcc-opt %t/nothing.mlir 2>&1 | filecheck %s --check-prefix=NOFILE
// RUN: not tcc-opt %s --no-such-flag 2>&1 | filecheck %s --check-prefix=NOFLAG

// CHECK-LABEL: graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y"]}
// CHECK-NEXT: ^bb0(%x: tensor<2x3xf32>):
// CHECK-NEXT: %[[C:.*]] = graph.constant() {value = resource<{{[0-9a-f]+}}>} : () -> tensor<3xf32>
// CHECK-NEXT: %[[SUM:.*]] = graph.add(%x, %[[C]]) : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32> loc("Add_0")
// CHECK-NEXT: graph.return(%[[SUM]]) : (tensor<2x3xf32>) -> ()
// GENERIC: "graph.add"(%x, %{{.*}}) : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32> loc(fused["Add_0"])
// NOLOC-NOT: loc(
// NOPASS: tcc-opt: error: there is no pass no-such-pass; `tcc-opt --list-passes` lists the {{[0-9]+}}
// BOTH: tcc-opt: error: --run-reproducer runs the module's own pipeline; leave out --passes
// NOFILE: tcc-opt: error: cannot read {{.*}}nothing.mlir: No such file or directory
// NOFLAG: tcc-opt: error: unrecognized arguments: --no-such-flag; see tcc-opt --help
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y"]} ({
^bb0(%x: tensor<2x3xf32>):
  %0 = graph.constant() {value = dense<3xf32: 1, 2, 3>} : () -> tensor<3xf32>
  %1 = graph.add(%x, %0) : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32> loc("Add_0")
  graph.return(%1) : (tensor<2x3xf32>) -> ()
}) : () -> ()
