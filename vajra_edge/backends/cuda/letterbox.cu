// One launch puts frames of any sizes and formats into the network's input; the numerics are geometry.letterbox's.
//
// grid: (columns / blockDim.x, rows / blockDim.y, frames); a thread a pixel of the input, all three channels.
// No header is included: NVRTC has none on a board without CUDA's toolkit.

typedef unsigned char u8;
typedef unsigned short u16;

enum Format { BGR = 0, BGRX = 1, NV12 = 2 };

// As letterbox.FrameBlock has it. A frame may change its size between two launches of one graph: only this changes.
struct FrameBlock {
    const u8 *plane;      // BGR, BGRx, or the luma of NV12
    const u8 *chroma;     // of NV12, Cb and Cr by turns for each 2 x 2 pixels
    int width, height;    // pixels of the frame
    int stride, chroma_stride;  // bytes from one row to the next
    int left, top, columns, rows;  // where it lies in the input, in pixels
    float step_x, step_y;  // frame pixels per input pixel
    int format;
    float black, gain, red_cr, green_cb, green_cr, blue_cb;  // of NV12: matrix and range
};

struct Rgb { float r, g, b; };

__device__ static float clipped(float value) { return fminf(fmaxf(rintf(value), 0.0f), 255.0f); }

// What a conversion of the whole frame would have put there, rounded as one rounds.
__device__ static Rgb pixel(const FrameBlock &frame, int x, int y) {
    Rgb found;
    if (frame.format == NV12) {
        float luma = (frame.plane[(size_t)y * frame.stride + x] - frame.black) * frame.gain;
        const u8 *pair = frame.chroma + (size_t)(y / 2) * frame.chroma_stride + (x & ~1);
        float cb = pair[0] - 128.0f, cr = pair[1] - 128.0f;
        found.r = clipped(luma + frame.red_cr * cr);
        found.g = clipped(luma - frame.green_cb * cb - frame.green_cr * cr);
        found.b = clipped(luma + frame.blue_cb * cb);
        return found;
    }
    const u8 *bgr = frame.plane + (size_t)y * frame.stride + x * (frame.format == BGRX ? 4 : 3);
    found.b = bgr[0];
    found.g = bgr[1];
    found.r = bgr[2];
    return found;
}

__device__ static float mixed(float a, float b, float share) { return a + (b - a) * share; }

// Pixel centres lie at halves, and the outermost pixels go on for ever.
__device__ static Rgb sampled(const FrameBlock &frame, int column, int row) {
    float x = fminf(fmaxf((column + 0.5f) * frame.step_x - 0.5f, 0.0f), frame.width - 1.0f);
    float y = fminf(fmaxf((row + 0.5f) * frame.step_y - 0.5f, 0.0f), frame.height - 1.0f);
    int left = (int)x, top = (int)y;
    int right = left + 1 < frame.width ? left + 1 : left, bottom = top + 1 < frame.height ? top + 1 : top;
    float across = x - left, down = y - top;
    Rgb a = pixel(frame, left, top), b = pixel(frame, right, top);
    Rgb c = pixel(frame, left, bottom), d = pixel(frame, right, bottom);
    Rgb found;
    found.r = mixed(mixed(a.r, b.r, across), mixed(c.r, d.r, across), down);
    found.g = mixed(mixed(a.g, b.g, across), mixed(c.g, d.g, across), down);
    found.b = mixed(mixed(a.b, b.b, across), mixed(c.b, d.b, across), down);
    return found;
}

__device__ static void put(float *where, float value) { *where = value; }
__device__ static void put(u16 *where, float value) { *where = half_bits(value); }

template <typename Out>
__device__ static void letterbox(const FrameBlock *frames, Out *input, int columns, int rows) {
    int column = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y * blockDim.y + threadIdx.y;
    if (column >= columns || row >= rows) return;
    const FrameBlock &frame = frames[blockIdx.z];
    int x = column - frame.left, y = row - frame.top;
    Rgb found = {114.0f, 114.0f, 114.0f};
    if (x >= 0 && x < frame.columns && y >= 0 && y < frame.rows) found = sampled(frame, x, y);
    size_t plane = (size_t)rows * columns;
    Out *here = input + 3 * plane * blockIdx.z + (size_t)row * columns + column;
    put(here, found.r / 255.0f);
    put(here + plane, found.g / 255.0f);
    put(here + 2 * plane, found.b / 255.0f);
}

extern "C" __global__ void letterbox_f32(const FrameBlock *frames, float *input, int columns, int rows) {
    letterbox(frames, input, columns, rows);
}

extern "C" __global__ void letterbox_f16(const FrameBlock *frames, u16 *input, int columns, int rows) {
    letterbox(frames, input, columns, rows);
}
