// From a network's raw output to objects in camera pixels: candidates, their ranks, who overlaps whom, greedy suppression.
//
// Equal to heads.detect.best_class: an anchor has its best class; those above the confidence are taken by score, ties by
// the lower anchor; a box that overlaps a better one of its class by more than iou goes. Whatever order threads run in,
// the result is the same: candidates are stored as they come, and their place follows from their rank alone.
//
// A best score that is no number or infinite says that the network's computation broke: nothing of that image is told.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;

#define MOST_CANDIDATES 1024  // that enter suppression
#define WORDS (MOST_CANDIDATES / 32)
#define TILE 512  // keys that a block compares with at a time

// As detections.ImageBlock has it: thresholds and geometry of one image, which change between two launches of one graph.
struct ImageBlock {
    float confidence, iou;
    int top_k, max_det, ticket;
    float left, top, scale, width, height;
};

// What came of one image; the ticket says of which. broken: a score is not finite, and there are no rows.
struct Answer { int rows, ticket, broken; };

// Of one image while its batch lasts: candidates, and whether a score is not finite.
struct Tally { int candidates, broken; };

struct Row { float x1, y1, x2, y2, score, label; };

__device__ static float value(float stored) { return stored; }
__device__ static float value(u16 stored) { return half_value(stored); }

// Infinity and what is no number have all bits of the exponent set, whatever the compiler takes for granted of numbers.
__device__ static bool is_finite(float value) { return (float_bits(value) & 0x7f800000u) != 0x7f800000u; }

// A key that sorts by score, then by the lower anchor: scores are positive, and their bits are in order.
__device__ static u64 key_of(float score, u32 anchor) { return (u64)float_bits(score) << 32 | (0xffffffffu - anchor); }
__device__ static u32 anchor_of(u64 key) { return 0xffffffffu - (u32)key; }

// grid: (anchors / blockDim.x, images). output: (images, 4 + classes, anchors).
template <typename In>
__device__ static void candidates(
    const In *output, const ImageBlock *images, u64 *keys, int *labels, Tally *tallies, int anchors, int classes
) {
    u32 anchor = blockIdx.x * blockDim.x + threadIdx.x;
    if (anchor >= (u32)anchors) return;
    const In *scores = output + ((size_t)blockIdx.y * (4 + classes) + 4) * anchors + anchor;
    float best = value(scores[0]);
    int label = 0;
    for (int one = 1; one < classes; one++) {
        float score = value(scores[(size_t)one * anchors]);
        if (score > best || score != score) {  // one that is no number stays the best, as on the host
            best = score;
            label = one;
        }
    }
    labels[(size_t)blockIdx.y * anchors + anchor] = label;
    if (!is_finite(best)) {
        tallies[blockIdx.y].broken = 1;  // whoever writes it writes the same
        return;
    }
    if (best > images[blockIdx.y].confidence && best > 0.0f)
        keys[(size_t)blockIdx.y * anchors + atomicAdd(&tallies[blockIdx.y].candidates, 1)] = key_of(best, anchor);
}

extern "C" __global__ void candidates_f32(
    const float *output, const ImageBlock *images, u64 *keys, int *labels, Tally *tallies, int anchors, int classes
) {
    candidates(output, images, keys, labels, tallies, anchors, classes);
}

extern "C" __global__ void candidates_f16(
    const u16 *output, const ImageBlock *images, u64 *keys, int *labels, Tally *tallies, int anchors, int classes
) {
    candidates(output, images, keys, labels, tallies, anchors, classes);
}

// grid: (anchors / blockDim.x, images). A candidate's place is the number of better ones; rows: (images, MOST_CANDIDATES).
template <typename In>
__device__ static void ranked(
    const In *output, const ImageBlock *images, const u64 *keys, const int *labels, const Tally *tallies,
    Row *rows, int anchors, int classes
) {
    __shared__ u64 tile[TILE];
    int count = tallies[blockIdx.y].candidates, mine = blockIdx.x * blockDim.x + threadIdx.x;
    if ((int)(blockIdx.x * blockDim.x) >= count) return;  // alike in every thread of the block
    keys += (size_t)blockIdx.y * anchors;
    u64 key = mine < count ? keys[mine] : 0;
    int better = 0;
    for (int start = 0; start < count; start += TILE) {
        int here = count - start < TILE ? count - start : TILE;
        __syncthreads();
        for (int one = threadIdx.x; one < here; one += blockDim.x) tile[one] = keys[start + one];
        __syncthreads();
#pragma unroll 8
        for (int one = 0; one < here; one++) better += tile[one] > key;
    }
    if (mine >= count || better >= images[blockIdx.y].top_k) return;
    output += (size_t)blockIdx.y * (4 + classes) * anchors;
    u32 anchor = anchor_of(key);
    float x = value(output[anchor]), y = value(output[anchors + anchor]);
    float half_width = value(output[2 * (size_t)anchors + anchor]) / 2;
    float half_height = value(output[3 * (size_t)anchors + anchor]) / 2;
    Row row = {x - half_width, y - half_height, x + half_width, y + half_height, bits_float((u32)(key >> 32)),
               (float)labels[(size_t)blockIdx.y * anchors + anchor]};
    rows[(size_t)blockIdx.y * MOST_CANDIDATES + better] = row;
}

extern "C" __global__ void ranked_f32(
    const float *output, const ImageBlock *images, const u64 *keys, const int *labels, const Tally *tallies,
    Row *rows, int anchors, int classes
) {
    ranked(output, images, keys, labels, tallies, rows, anchors, classes);
}

extern "C" __global__ void ranked_f16(
    const u16 *output, const ImageBlock *images, const u64 *keys, const int *labels, const Tally *tallies,
    Row *rows, int anchors, int classes
) {
    ranked(output, images, keys, labels, tallies, rows, anchors, classes);
}

__device__ static float overlap(const Row &a, const Row &b) {
    float width = fminf(a.x2, b.x2) - fmaxf(a.x1, b.x1), height = fminf(a.y2, b.y2) - fmaxf(a.y1, b.y1);
    if (width <= 0.0f || height <= 0.0f) return 0.0f;
    float shared = width * height;
    return shared / ((a.x2 - a.x1) * (a.y2 - a.y1) + (b.x2 - b.x1) * (b.y2 - b.y1) - shared);
}

__device__ static float within(float value, float most) { return fminf(fmaxf(value, 0.0f), most); }

__device__ static int entered(const Tally &tally, const ImageBlock &image) {
    if (tally.broken) return 0;
    return tally.candidates < image.top_k ? tally.candidates : image.top_k;
}

// grid: (MOST_CANDIDATES * WORDS / blockDim.x, images). A candidate's bits: the worse ones of its class that it overlaps.
extern "C" __global__ void overlaps(const Row *rows, const Tally *tallies, const ImageBlock *images, u32 *overlapped) {
    int thread = blockIdx.x * blockDim.x + threadIdx.x, mine = thread / WORDS, first = thread % WORDS * 32;
    const ImageBlock &image = images[blockIdx.y];
    int count = entered(tallies[blockIdx.y], image);
    if (mine >= count) return;
    rows += (size_t)blockIdx.y * MOST_CANDIDATES;
    const Row best = rows[mine];
    u32 bits = 0;
    for (int bit = 0; bit < 32; bit++) {
        int other = first + bit;
        if (other > mine && other < count && rows[other].label == best.label && overlap(best, rows[other]) > image.iou)
            bits |= 1u << bit;
    }
    overlapped[(size_t)blockIdx.y * MOST_CANDIDATES * WORDS + thread] = bits;
}

__device__ static Row in_camera(const Row &row, const ImageBlock &image) {
    Row found = {within((row.x1 - image.left) / image.scale, image.width),
                 within((row.y1 - image.top) / image.scale, image.height),
                 within((row.x2 - image.left) / image.scale, image.width),
                 within((row.y2 - image.top) / image.scale, image.height), row.score, row.label};
    return found;
}

// grid: (images). found: (images, most_rows), of which the answer says how many are filled. The tally is zero again for
// the next frame. 32 candidates at a time: one thread settles them among themselves, then all tell the worse ones.
extern "C" __global__ void kept(
    const Row *rows, const u32 *overlapped, const ImageBlock *images, Tally *tallies, Row *found,
    Answer *answers, int most_rows
) {
    __shared__ u32 bits[32 * WORDS], gone[WORDS], taken;
    const ImageBlock image = images[blockIdx.x];
    int count = entered(tallies[blockIdx.x], image), told = 0;
    int most = image.max_det < most_rows ? image.max_det : most_rows;
    rows += (size_t)blockIdx.x * MOST_CANDIDATES;
    overlapped += (size_t)blockIdx.x * MOST_CANDIDATES * WORDS;
    for (int word = threadIdx.x; word < WORDS; word += blockDim.x) gone[word] = 0;
    for (int start = 0; start < count && told < most; start += 32) {
        int here = count - start < 32 ? count - start : 32;
        for (int one = threadIdx.x; one < here * WORDS; one += blockDim.x) bits[one] = overlapped[start * WORDS + one];
        __syncthreads();
        if (threadIdx.x == 0) {
            u32 out = gone[start / 32], in = 0;
            for (int one = 0, left = most - told; one < here && left > 0; one++)
                if (!(out >> one & 1)) {
                    in |= 1u << one;
                    out |= bits[one * WORDS + start / 32];
                    left--;
                }
            taken = in;
        }
        __syncthreads();
        u32 in = taken;
        if (threadIdx.x < 32 && in >> threadIdx.x & 1) {
            int place = told + __popc(in & ((1u << threadIdx.x) - 1));
            found[(size_t)blockIdx.x * most_rows + place] = in_camera(rows[start + threadIdx.x], image);
        }
        for (int one = threadIdx.x; one < here * WORDS; one += blockDim.x)
            if (in >> one / WORDS & 1 && bits[one]) atomicOr(&gone[one % WORDS], bits[one]);
        told += __popc(in);
        __syncthreads();
    }
    __syncthreads();  // every thread has read the tally
    if (threadIdx.x == 0) {
        answers[blockIdx.x].rows = told;
        answers[blockIdx.x].ticket = image.ticket;
        answers[blockIdx.x].broken = tallies[blockIdx.x].broken;
        tallies[blockIdx.x].candidates = tallies[blockIdx.x].broken = 0;
    }
}
