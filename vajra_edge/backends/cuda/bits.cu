// What headers of CUDA's toolkit would give, which a board without it lacks. The other sources follow this one.
__device__ static unsigned short half_bits(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

__device__ static float half_value(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

__device__ static unsigned int float_bits(float value) { return __float_as_uint(value); }
__device__ static float bits_float(unsigned int bits) { return __uint_as_float(bits); }
