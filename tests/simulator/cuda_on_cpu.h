// Runs the text of a CUDA kernel on the CPU.
//
// Blocks run one after another. Without barriers the threads of a block are a loop; with them each
// is a fiber, and goes on until it waits for its warp or its block. A __shared__ array is static,
// because only one block is under way; it is not cleared between blocks, as on a GPU.
#pragma once
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <type_traits>
#include <utility>

struct uint3 { unsigned x, y, z; };
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static const int warpSize = 32;

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static
#define __forceinline__ inline
#define __noinline__
#define __align__(n) alignas(n)
#define __launch_bounds__(...)

namespace simulator {
alignas(256) static char dynamic[227 * 1024];  // extern __shared__ arrays

#ifdef SIMULATOR_FIBERS
}
#include <setjmp.h>
#include <ucontext.h>
namespace simulator {
enum { READY, WARP, BLOCK, DONE };
struct Fiber {
    jmp_buf place;  // where it goes on; swapcontext would cost two system calls each time
    bool begun;
    uint3 index;
    int state, line;
    unsigned shown;    // how often it has taken part in a shuffle
    uint64_t slot[2];  // what it showed then; two, so that a fast lane cannot overwrite it
};
static Fiber fibers[1024];
static jmp_buf scheduler;
static int current, threads;
static void (*body)(void *);
static void *argument;
static const char *fault;

__attribute__((noinline)) static void pause(int state) {
    fibers[current].state = state;
    if (!_setjmp(fibers[current].place)) _longjmp(scheduler, 1);
}
static void wait(int state, int line) {
    fibers[current].line = line;
    pause(state);
}
static void enter() {
    for (;;) {  // a thread of one block after another
        body(argument);
        pause(DONE);
    }
}
__attribute__((noinline)) static void resume() {
    static char stacks[1024][64 * 1024];
    if (_setjmp(scheduler)) return;
    if (fibers[current].begun) _longjmp(fibers[current].place, 1);
    fibers[current].begun = true;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = stacks[current];
    context.uc_stack.ss_size = sizeof stacks[current];
    context.uc_link = nullptr;
    makecontext(&context, enter, 0);
    setcontext(&context);
}
// Let go on all of `first` to `last` if each is done or waits for `state`.
static bool release(int first, int last, int state) {
    int line = -1;
    bool any = false;
    for (int i = first; i < last; i++) {
        if (fibers[i].state == DONE) continue;
        if (fibers[i].state != state) return false;
        if (state == BLOCK && line >= 0 && line != fibers[i].line)
            fault = "threads of a block wait at different __syncthreads()";
        line = fibers[i].line;
        any = true;
    }
    for (int i = first; i < last; i++)
        if (fibers[i].state == state) fibers[i].state = READY;
    return any;
}
static void run_block(bool backwards) {
    for (int i = 0; i < threads; i++) {
        Fiber &f = fibers[i];
        f.state = READY;
        f.shown = 0;
        f.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
    }
    while (!fault) {
        for (int k = 0; k < threads; k++) {
            current = backwards ? threads - 1 - k : k;
            if (fibers[current].state != READY) continue;
            threadIdx = fibers[current].index;
            resume();
        }
        bool moved = false, left = false;
        for (int first = 0; first < threads; first += 32)
            moved |= release(first, first + 32 < threads ? first + 32 : threads, WARP);
        if (!moved) moved = release(0, threads, BLOCK);
        for (int i = 0; i < threads; i++) left |= fibers[i].state != DONE;
        if (!left) return;
        if (!moved) fault = "threads of a block wait for each other in different places";
    }
    for (Fiber &f : fibers) f.begun = false;  // they are stuck in the middle of the kernel
}
// Show `value` to the warp, and return which turn that was.
template <class T> static unsigned show(T value) {
    static_assert(sizeof(T) <= 8, "a shuffle moves up to 8 bytes");
    Fiber &f = fibers[current];
    unsigned turn = ++f.shown;
    memcpy(&f.slot[turn % 2], &value, sizeof value);
    wait(WARP, 0);
    return turn;
}
static bool took_part(int thread, unsigned turn) {
    return thread < threads && fibers[thread].shown >= turn;
}
template <class T> static T exchange(T value, int from) {
    int source = current / 32 * 32 + from;
    unsigned turn = show(value);
    if (from >= 0 && from < 32 && took_part(source, turn))
        memcpy(&value, &fibers[source].slot[turn % 2], sizeof value);
    return value;
}
static int lane() { return current % 32; }
static unsigned ballot(bool bit) {
    unsigned bits = 0, turn = show((uint64_t)bit);
    for (int i = 0, first = current / 32 * 32; i < 32; i++)
        if (took_part(first + i, turn)) bits |= (unsigned)fibers[first + i].slot[turn % 2] << i;
    return bits;
}
#endif

static const char *run(const unsigned *geometry, size_t shared, void (*kernel)(void *), void *with) {
    gridDim = dim3(geometry[0], geometry[1], geometry[2]);
    blockDim = dim3(geometry[3], geometry[4], geometry[5]);
    unsigned blocks = 0;
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < gridDim.y; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++) {
                memset(dynamic, 0xff, shared);  // NaN: nobody may read it before writing
#ifdef SIMULATOR_FIBERS
                body = kernel, argument = with, fault = nullptr;
                threads = blockDim.x * blockDim.y * blockDim.z;
                run_block(blocks++ % 2);  // a race gives different results in the next block
                if (fault) return fault;
#else
                for (threadIdx.z = 0; threadIdx.z < blockDim.z; threadIdx.z++)
                    for (threadIdx.y = 0; threadIdx.y < blockDim.y; threadIdx.y++)
                        for (threadIdx.x = 0; threadIdx.x < blockDim.x; threadIdx.x++) kernel(with);
#endif
            }
    return nullptr;
}

// What a kernel's parameters are: 'p' or 'c' for a pointer (to const), a letter, the size.
template <class T> static char *describe_one(char *out) {
    using U = std::remove_cv_t<std::remove_pointer_t<T>>;
    if (std::is_pointer_v<T>) *out++ = std::is_const_v<std::remove_pointer_t<T>> ? 'c' : 'p';
    bool real = std::is_floating_point_v<U>, whole = std::is_integral_v<U>;
#ifdef __FLT16_MAX__
    real |= std::is_same_v<U, _Float16>;
#endif
    *out++ = std::is_same_v<U, bool> ? 'b' : real ? 'f' : !whole ? 'V' : std::is_signed_v<U> ? 'i' : 'u';
    if constexpr (std::is_void_v<U>) *out++ = '0';
    else out += sprintf(out, "%d", (int)sizeof(U));
    *out++ = ' ';
    *out = 0;
    return out;
}
template <class... A> static void describe(void (*)(A...), char *out) {
    *out = 0;
    ((out = describe_one<A>(out)), ...);
}
template <class... A> struct Call {
    void (*kernel)(A...);
    void **values;
    template <size_t... I> void go(std::index_sequence<I...>) { kernel(*(A *)values[I]...); }
    static void once(void *self) { ((Call *)self)->go(std::index_sequence_for<A...>()); }
};
template <class... A>
static const char *launch(void (*kernel)(A...), const unsigned *geometry, size_t shared, void **values) {
    Call<A...> call{kernel, values};
    return run(geometry, shared, Call<A...>::once, &call);
}
}  // namespace simulator

#define SIMULATOR_EXPORT(name)                                                                   \
    extern "C" void simulator_types_##name(char *out) { simulator::describe(name, out); }        \
    extern "C" const char *simulator_launch_##name(const unsigned *geometry, size_t shared,      \
                                                   void **values) {                              \
        return simulator::launch(name, geometry, shared, values);                                \
    }

#ifdef SIMULATOR_FIBERS
#define __syncthreads() simulator::wait(simulator::BLOCK, __LINE__)
#define __syncwarp(...) simulator::wait(simulator::WARP, 0)
template <class T> T __shfl_sync(unsigned, T v, int from, int width = 32) {
    int lane = simulator::lane();
    return simulator::exchange(v, lane / width * width + from % width);
}
template <class T> T __shfl_xor_sync(unsigned, T v, int mask, int width = 32) {
    int lane = simulator::lane(), from = lane ^ mask;
    return simulator::exchange(v, from / width <= lane / width ? from : lane);
}
template <class T> T __shfl_down_sync(unsigned, T v, unsigned by, int width = 32) {
    int lane = simulator::lane();
    return simulator::exchange(v, lane % width + (int)by < width ? lane + (int)by : lane);
}
template <class T> T __shfl_up_sync(unsigned, T v, unsigned by, int width = 32) {
    int lane = simulator::lane();
    return simulator::exchange(v, lane % width >= (int)by ? lane - (int)by : lane);
}
static unsigned __ballot_sync(unsigned mask, int bit) { return simulator::ballot(bit) & mask; }
static int __any_sync(unsigned mask, int bit) { return __ballot_sync(mask, bit) != 0; }
static int __all_sync(unsigned mask, int bit) { return __ballot_sync(mask, !bit) == 0; }
#else  // for kernels of the same text that are compiled here, and launched from the other library
#define __syncthreads()
#define __syncwarp(...)
template <class T> T __shfl_sync(unsigned, T v, int, int = 32) { return v; }
template <class T> T __shfl_xor_sync(unsigned, T v, int, int = 32) { return v; }
template <class T> T __shfl_down_sync(unsigned, T v, unsigned, int = 32) { return v; }
template <class T> T __shfl_up_sync(unsigned, T v, unsigned, int = 32) { return v; }
static unsigned __ballot_sync(unsigned, int) { return 0; }
static int __any_sync(unsigned, int) { return 0; }
static int __all_sync(unsigned, int) { return 0; }
#endif
static void __threadfence() {}
static void __threadfence_block() {}

// Only one thread is under way at a time: atomics are what they look like.
template <class T> struct Same { using type = T; };
#define ATOMIC(name, expression)                                          \
    template <class T> T name(T *p, typename Same<T>::type v) {           \
        T old = *p;                                                       \
        *p = expression;                                                  \
        return old;                                                       \
    }
ATOMIC(atomicAdd, old + v)
ATOMIC(atomicSub, old - v)
ATOMIC(atomicMax, old > v ? old : v)
ATOMIC(atomicMin, old < v ? old : v)
ATOMIC(atomicExch, v)
ATOMIC(atomicOr, old | v)
ATOMIC(atomicAnd, old & v)
ATOMIC(atomicXor, old ^ v)
ATOMIC(atomicInc, old >= v ? 0 : old + 1)
template <class T> T atomicCAS(T *p, typename Same<T>::type compare, typename Same<T>::type v) {
    T old = *p;
    if (old == compare) *p = v;
    return old;
}

template <class To, class From> static To simulator_bits(From x) {
    static_assert(sizeof(To) == sizeof(From));
    To y;
    memcpy(&y, &x, sizeof y);
    return y;
}
static unsigned __float_as_uint(float x) { return simulator_bits<unsigned>(x); }
static int __float_as_int(float x) { return simulator_bits<int>(x); }
static float __uint_as_float(unsigned x) { return simulator_bits<float>(x); }
static float __int_as_float(int x) { return simulator_bits<float>(x); }
static long long __double_as_longlong(double x) { return simulator_bits<long long>(x); }
static double __longlong_as_double(long long x) { return simulator_bits<double>(x); }

// <math.h> has the overloads for float; these are CUDA's own.
template <class A, class B> static std::common_type_t<A, B> min(A a, B b) {
    if constexpr (std::is_floating_point_v<std::common_type_t<A, B>>) return fmin(a, b);
    else return (std::common_type_t<A, B>)b < a ? b : a;
}
template <class A, class B> static std::common_type_t<A, B> max(A a, B b) {
    if constexpr (std::is_floating_point_v<std::common_type_t<A, B>>) return fmax(a, b);
    else return (std::common_type_t<A, B>)b > a ? b : a;
}
static float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static double rsqrt(double x) { return 1.0 / ::sqrt(x); }
static float rsqrt(float x) { return rsqrtf(x); }
#define __expf expf  // macros: the C library has functions of these names of its own
#define __exp10f exp10f
#define __logf logf
#define __log2f log2f
#define __log10f log10f
#define __powf powf
#define __sinf sinf
#define __cosf cosf
static float __fdividef(float x, float y) { return x / y; }
static float __frcp_rn(float x) { return 1.0f / x; }
static float __fsqrt_rn(float x) { return sqrtf(x); }
static float __fadd_rn(float x, float y) { return x + y; }
static float __fmul_rn(float x, float y) { return x * y; }
static float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }
static int __float2int_rn(float x) { return (int)rintf(x); }
static int __float2int_rz(float x) { return (int)x; }
static float __int2float_rn(int x) { return (float)x; }
static float __uint2float_rn(unsigned x) { return (float)x; }
static int __popc(unsigned x) { return __builtin_popcount(x); }
static int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static int __ffs(int x) { return __builtin_ffs(x); }
static unsigned __umulhi(unsigned x, unsigned y) { return (uint64_t)x * y >> 32; }
template <class T> static T __ldg(const T *p) { return *p; }
template <class T> static T __ldcg(const T *p) { return *p; }
template <class T> static void __stcg(T *p, T v) { *p = v; }

#define VECTORS(T, name)                                                                        \
    struct name##2 { T x, y; };                                                                 \
    struct alignas(4 * sizeof(T)) name##4 { T x, y, z, w; };                                    \
    static name##2 make_##name##2(T x, T y) { return {x, y}; }                                  \
    static name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
VECTORS(float, float)
VECTORS(int, int)
VECTORS(unsigned, uint)
VECTORS(unsigned char, uchar)
#ifdef __FLT16_MAX__
typedef _Float16 float16;  // CuPy's name in an ElementwiseKernel
#endif

// What an ElementwiseKernel sees of a raw parameter.
template <class T> struct Raw {
    T *p;
    long long count;
    T &operator[](long long i) const { return p[i]; }
    long long size() const { return count; }
};
