/* CUDA C on a CPU, to test kernels without a GPU: a block's threads are fibers, which give way at __syncthreads().
 * Whoever asks for it has them run last to first: what depends on an order within a barrier is found by comparing. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include <vector>

#define __device__
#define __global__
#define __shared__ static

struct Dim { unsigned x, y, z; };
static Dim gridDim, blockDim, blockIdx, threadIdx;

static unsigned float_bits(float value) { unsigned bits; memcpy(&bits, &value, 4); return bits; }
static float bits_float(unsigned bits) { float value; memcpy(&value, &bits, 4); return value; }

static float half_value(unsigned short bits) {
    int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    float size = exponent == 31 ? (mantissa ? NAN : INFINITY)
               : exponent ? ldexpf(1024 + mantissa, exponent - 25) : ldexpf(mantissa, -24);
    return bits & 0x8000 ? -size : size;
}

/* To the nearest, ties to even; finite values of at most 65504 are all that tests have. */
static unsigned short half_bits(float value) {
    unsigned short sign = value < 0 ? 0x8000 : 0;
    float size = fabsf(value);
    if (size < 6.103515625e-05f) return sign | (unsigned short)rintf(size * 16777216.0f);
    int exponent;
    float share = frexpf(size, &exponent);
    unsigned short mantissa = (unsigned short)rintf(share * 2048.0f);
    return sign | (unsigned short)(((exponent + 14) << 10) + (mantissa - 1024));
}

static void atomicOr(unsigned *where, unsigned what) { *where |= what; }
static int __popc(unsigned bits) { return __builtin_popcount(bits); }
static int atomicAdd(int *where, int what) { int before = *where; *where += what; return before; }

static ucontext_t scheduler;
static std::vector<ucontext_t> fibers;
static unsigned current;
static bool fibered;
static void (*body)(void *);
static void *argument;

static void __syncthreads() {
    if (!fibered) __builtin_trap();
    swapcontext(&fibers[current], &scheduler);
}

static std::vector<char> ended;
static void fiber() { body(argument); ended[current] = 1; }

static void block_of_fibers(bool backward) {
    unsigned count = blockDim.x;
    const size_t stack = 64 << 10;
    static std::vector<char> stacks;
    stacks.resize(count * stack);
    fibers.resize(count);
    ended.assign(count, 0);
    for (unsigned one = 0; one < count; one++) {
        getcontext(&fibers[one]);
        fibers[one].uc_stack.ss_sp = &stacks[one * stack];
        fibers[one].uc_stack.ss_size = stack;
        fibers[one].uc_link = &scheduler;
        makecontext(&fibers[one], fiber, 0);
    }
    for (unsigned left = count; left;) {
        left = 0;
        for (unsigned turn = 0; turn < count; turn++) {
            current = backward ? count - 1 - turn : turn;
            if (ended[current]) continue;
            threadIdx = {current, 0, 0};
            swapcontext(&scheduler, &fibers[current]);
            left += !ended[current];
        }
    }
}

template <typename Body>
static void called(void *kept) { (*(Body *)kept)(); }

/* with_barriers: the kernel has __syncthreads(), and one-dimensional blocks. */
template <typename Body>
static void launch(Dim grid, Dim block, bool with_barriers, bool backward, Body once) {
    gridDim = grid, blockDim = block, fibered = with_barriers, body = called<Body>, argument = &once;
    for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
            for (unsigned column = 0; column < grid.x; column++) {
                blockIdx.x = backward ? grid.x - 1 - column : column;
                if (with_barriers) {
                    block_of_fibers(backward);
                    continue;
                }
                for (threadIdx.z = 0; threadIdx.z < block.z; threadIdx.z++)
                    for (threadIdx.y = 0; threadIdx.y < block.y; threadIdx.y++)
                        for (unsigned thread = 0; thread < block.x; thread++) {
                            threadIdx.x = backward ? block.x - 1 - thread : thread;
                            once();
                        }
            }
}
