// From a network's raw output to objects in camera pixels: candidates, their ranks, greedy suppression. Three launches.
//
// Equal to heads.detect.best_class: an anchor has its best class; those above the confidence are taken by score, ties by
// the lower anchor; a box that overlaps a better one of its class by more than iou goes. Whatever order threads run in,
// the result is the same: candidates are stored as they come, and their place follows from their rank alone.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;

#define MOST_CANDIDATES 1024  // that enter suppression: what one block holds in 24 KiB of shared memory

// As detections.ImageBlock has it: thresholds and geometry of one image, which change between two launches of one graph.
struct ImageBlock {
    float confidence, iou;
    int top_k, max_det, ticket;
    float left, top, scale, width, height;
};

// What came of one image; the ticket says of which.
struct Answer { int rows, ticket; };

struct Row { float x1, y1, x2, y2, score, label; };

__device__ static float value(float stored) { return stored; }
__device__ static float value(u16 stored) { return half_value(stored); }

// A key that sorts by score, then by the lower anchor: scores are positive, and their bits are in order.
__device__ static u64 key_of(float score, u32 anchor) { return (u64)float_bits(score) << 32 | (0xffffffffu - anchor); }
__device__ static u32 anchor_of(u64 key) { return 0xffffffffu - (u32)key; }

// grid: (anchors / blockDim.x, images). output: (images, 4 + classes, anchors).
template <typename In>
__device__ static void candidates(
    const In *output, const ImageBlock *images, u64 *keys, int *labels, int *counts, int anchors, int classes
) {
    u32 anchor = blockIdx.x * blockDim.x + threadIdx.x;
    if (anchor >= (u32)anchors) return;
    const In *scores = output + ((size_t)blockIdx.y * (4 + classes) + 4) * anchors + anchor;
    float best = value(scores[0]);
    int label = 0;
    for (int one = 1; one < classes; one++) {
        float score = value(scores[(size_t)one * anchors]);
        if (score > best) {
            best = score;
            label = one;
        }
    }
    labels[(size_t)blockIdx.y * anchors + anchor] = label;
    if (best > images[blockIdx.y].confidence && best > 0.0f)
        keys[(size_t)blockIdx.y * anchors + atomicAdd(&counts[blockIdx.y], 1)] = key_of(best, anchor);
}

extern "C" __global__ void candidates_f32(
    const float *output, const ImageBlock *images, u64 *keys, int *labels, int *counts, int anchors, int classes
) {
    candidates(output, images, keys, labels, counts, anchors, classes);
}

extern "C" __global__ void candidates_f16(
    const u16 *output, const ImageBlock *images, u64 *keys, int *labels, int *counts, int anchors, int classes
) {
    candidates(output, images, keys, labels, counts, anchors, classes);
}

// grid: (anchors / blockDim.x, images). A candidate's place is the number of better ones.
extern "C" __global__ void ranks(
    const u64 *keys, const int *counts, const ImageBlock *images, u64 *ranked, int anchors
) {
    int count = counts[blockIdx.y], mine = blockIdx.x * blockDim.x + threadIdx.x;
    if (mine >= count) return;
    keys += (size_t)blockIdx.y * anchors;
    u64 key = keys[mine];
    int better = 0;
    for (int one = 0; one < count; one++) better += keys[one] > key;
    if (better < images[blockIdx.y].top_k) ranked[(size_t)blockIdx.y * MOST_CANDIDATES + better] = key;
}

__device__ static float overlap(const Row &a, const Row &b) {
    float width = fminf(a.x2, b.x2) - fmaxf(a.x1, b.x1), height = fminf(a.y2, b.y2) - fmaxf(a.y1, b.y1);
    if (width <= 0.0f || height <= 0.0f) return 0.0f;
    float shared = width * height;
    return shared / ((a.x2 - a.x1) * (a.y2 - a.y1) + (b.x2 - b.x1) * (b.y2 - b.y1) - shared);
}

__device__ static float within(float value, float most) { return fminf(fmaxf(value, 0.0f), most); }

// grid: (images). found: (images, most_rows), of which the answer says how many are filled. counts is zero again for the
// next frame.
template <typename In>
__device__ static void suppressed(
    const In *output, const ImageBlock *images, const u64 *ranked, const int *labels, int *counts, Row *found,
    Answer *answers, int anchors, int classes, int most_rows
) {
    __shared__ Row rows[MOST_CANDIDATES];
    __shared__ u8 gone[MOST_CANDIDATES];
    const ImageBlock image = images[blockIdx.x];
    int count = counts[blockIdx.x];
    count = count < image.top_k ? count : image.top_k;
    output += (size_t)blockIdx.x * (4 + classes) * anchors;
    for (int one = threadIdx.x; one < count; one += blockDim.x) {
        u64 key = ranked[(size_t)blockIdx.x * MOST_CANDIDATES + one];
        u32 anchor = anchor_of(key);
        float x = value(output[anchor]), y = value(output[anchors + anchor]);
        float half_width = value(output[2 * (size_t)anchors + anchor]) / 2;
        float half_height = value(output[3 * (size_t)anchors + anchor]) / 2;
        Row row = {x - half_width, y - half_height, x + half_width, y + half_height, bits_float((u32)(key >> 32)),
                   (float)labels[(size_t)blockIdx.x * anchors + anchor]};
        rows[one] = row;
        gone[one] = 0;
    }
    __syncthreads();
    int most = image.max_det < most_rows ? image.max_det : most_rows, kept = 0;
    for (int one = 0; one < count && kept < most; one++) {
        if (gone[one]) continue;  // alike in every thread: it was settled before the last barrier
        const Row best = rows[one];
        for (int other = one + 1 + threadIdx.x; other < count; other += blockDim.x)
            if (!gone[other] && rows[other].label == best.label && overlap(best, rows[other]) > image.iou) gone[other] = 1;
        if (threadIdx.x == 0) {
            Row row = {within((best.x1 - image.left) / image.scale, image.width),
                       within((best.y1 - image.top) / image.scale, image.height),
                       within((best.x2 - image.left) / image.scale, image.width),
                       within((best.y2 - image.top) / image.scale, image.height), best.score, best.label};
            found[(size_t)blockIdx.x * most_rows + kept] = row;
        }
        kept++;
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        answers[blockIdx.x].rows = kept;
        answers[blockIdx.x].ticket = image.ticket;
        counts[blockIdx.x] = 0;
    }
}

extern "C" __global__ void suppressed_f32(
    const float *output, const ImageBlock *images, const u64 *ranked, const int *labels, int *counts, Row *found,
    Answer *answers, int anchors, int classes, int most_rows
) {
    suppressed(output, images, ranked, labels, counts, found, answers, anchors, classes, most_rows);
}

extern "C" __global__ void suppressed_f16(
    const u16 *output, const ImageBlock *images, const u64 *ranked, const int *labels, int *counts, Row *found,
    Answer *answers, int anchors, int classes, int most_rows
) {
    suppressed(output, images, ranked, labels, counts, found, answers, anchors, classes, most_rows);
}
