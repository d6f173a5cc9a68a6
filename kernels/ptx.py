"""Instructions that Numba has no name for, each with its twin for the simulator; csrc/cuda/ptx.cuh has more of them.

An intrinsic is a function of types: it returns a signature, and what emits LLVM's code for it. The tensor cores are
reached by inline PTX, where "=r" and "=f" name 32-bit registers that an instruction writes, "r" and "f" those it reads.

ldmatrix and mma.sync are done by a warp together: each lane brings a part of the operands and gets a part of the
result. The simulator runs threads one by one, so their twins need a scheduler that lets the threads of a warp meet. One
that can sets ``meet_warp``: it takes what this thread brings and returns what all lanes brought
(tests/numba_simulator.py does).
"""

import numpy as np
from numba import cuda, float32, types, uint32

from .common import SIMULATED

WARP = 32  # lanes
meet_warp = None

if SIMULATED:

    def bits_of(value):
        return np.float32(value).view(np.uint32)

    def tf32_of(bits):
        """The tensor core does not read the lower 13 bits."""
        return np.uint32(bits & 0xFFFFE000).view(np.float32)

    @cuda.jit(device=True)
    def load4(array, index):
        return array[index], array[index + 1], array[index + 2], array[index + 3]

    @cuda.jit(device=True)
    def to_tf32(value):
        rounded = (int(bits_of(value)) + 0x1000) & 0xFFFFE000 if value == value else 0x7FFFFFFF
        return np.uint32(rounded).view(np.float32)

    @cuda.jit(device=True)
    def ldmatrix_x4(array, index):
        if index % 4:
            raise ValueError(f"ldmatrix reads rows of 16 bytes, received element {index}, no multiple of 4")
        lane = cuda.threadIdx.x % WARP
        rows = meet_warp(index)
        return tuple(bits_of(array[rows[8 * matrix + lane // 4] + lane % 4]) for matrix in range(4))

    @cuda.jit(device=True)
    def mma_m16n8k8_tf32(d, a, b):
        lane = cuda.threadIdx.x % WARP
        brought = meet_warp((a, b))
        total = []
        for v in range(4):
            row = lane // 4 + v // 2 * 8
            column = lane % 4 * 2 + v % 2
            value = np.float32(0)
            for k in range(8):
                left = brought[row % 8 * 4 + k % 4][0][row // 8 + k // 4 * 2]
                right = brought[column * 4 + k % 4][1][k // 4]
                value += tf32_of(left) * tf32_of(right)
            total.append(d[v] + value)
        return tuple(total)

    @cuda.jit(device=True)
    def as_word(value):
        return bits_of(value)

else:
    from llvmlite import ir
    from numba.cuda.extending import intrinsic

    FLOAT, WORD = ir.FloatType(), ir.IntType(32)
    SHARED = 3  # LLVM's number of shared memory

    def element_pointer(context, builder, signature, args):
        """The address of array[index], of an array with one axis"""
        array = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.gep(array.data, [args[1]])

    def assembly(builder, returns, instruction, constraints, operands):
        """An instruction of a whole warp, which the compiler must neither repeat, drop nor move into a branch"""
        function = ir.FunctionType(returns, [operand.type for operand in operands])
        code = ir.InlineAsm(function, instruction, constraints, side_effect=True)
        return builder.call(code, operands, attrs=("convergent",))

    def four(context, builder, signature, result):
        members = [builder.extract_value(result, i) for i in range(4)]
        return context.make_tuple(builder, signature.return_type, members)

    @intrinsic
    def load4(typing, array, index):
        """Four neighbours of array (n,) float32 from a multiple of four on, in one load of 16 bytes"""

        def codegen(context, builder, signature, args):
            pointer = element_pointer(context, builder, signature, args)
            vector = builder.load(builder.bitcast(pointer, ir.VectorType(FLOAT, 4).as_pointer()), align=16)
            members = [builder.extract_element(vector, WORD(i)) for i in range(4)]
            return context.make_tuple(builder, signature.return_type, members)

        return types.UniTuple(float32, 4)(array, types.uint64), codegen

    @intrinsic
    def to_tf32(typing, value):
        """A float32 rounded to TF32, 10 bits of significand, ties away from zero"""

        def codegen(context, builder, signature, args):
            code = ir.InlineAsm(ir.FunctionType(WORD, [FLOAT]), "cvt.rna.tf32.f32 $0, $1;", "=r,f")
            return builder.bitcast(builder.call(code, args), FLOAT)

        return float32(float32), codegen

    @intrinsic
    def ldmatrix_x4(typing, array, index):
        """Four matrices of 8 rows of four 32-bit words from shared memory, array (n,) float32: lane l says at which
        index row l % 8 of matrix l / 8 begins, a multiple of four, and gets word l % 4 of row l / 4 of each matrix."""

        def codegen(context, builder, signature, args):
            pointer = element_pointer(context, builder, signature, args)
            address = builder.ptrtoint(builder.addrspacecast(pointer, pointer.type.pointee.as_pointer(SHARED)), WORD)
            instruction = "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {$0, $1, $2, $3}, [$4];"
            words = ir.LiteralStructType([WORD] * 4)
            result = assembly(builder, words, instruction, "=r,=r,=r,=r,r,~{memory}", [address])
            return four(context, builder, signature, result)

        return types.UniTuple(uint32, 4)(array, types.uint64), codegen

    @intrinsic
    def mma_m16n8k8_tf32(typing, d, a, b):
        """d (16, 8) + a (16, 8) @ b (8, 8): a warp's sums are float32, its factors words of TF32. Lane l holds
        d(l/4 + v/2*8, l%4*2 + v%2), v in [0, 4); a(l/4 + i%2*8, l%4 + i/2*4), i in [0, 4); b(l%4 + i*4, l/4), i in
        [0, 2)."""

        def codegen(context, builder, signature, args):
            d, a, b = args
            operands = [builder.extract_value(a, i) for i in range(4)] + [builder.extract_value(b, i) for i in range(2)]
            operands += [builder.extract_value(d, i) for i in range(4)]
            instruction = (
                "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                "{$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};"
            )
            floats = ir.LiteralStructType([FLOAT] * 4)
            result = assembly(builder, floats, instruction, "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f", operands)
            return four(context, builder, signature, result)

        sums, words = types.UniTuple(float32, 4), types.UniTuple(uint32, 4)
        return sums(sums, words, types.UniTuple(uint32, 2)), codegen

    @intrinsic
    def as_word(typing, value):
        """The bits of a float32"""

        def codegen(context, builder, signature, args):
            return builder.bitcast(args[0], WORD)

        return uint32(float32), codegen
