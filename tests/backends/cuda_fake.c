/* Stand-ins of libcuda.so.1 (-DDRIVER) and libcudart.so.N (-DRUNTIME=12060) that keep a ledger and fail where told.
 *
 * FAKE_CUDA_DRIVER  the newest CUDA that the driver takes, like 12060
 * FAKE_CUDA_GPUS    how many devices there are
 * FAKE_CUDA_FAIL    function:code, what that function returns from now on
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

static int told_to_fail(const char *function) {
    const char *text = getenv("FAKE_CUDA_FAIL");
    size_t length = strlen(function);
    return text && !strncmp(text, function, length) && text[length] == ':' ? atoi(text + length + 1) : 0;
}

#define FAILS \
    do { \
        int code = told_to_fail(__func__); \
        if (code) return code; \
    } while (0)

static int driver_version(void) { return number("FAKE_CUDA_DRIVER", 12060); }

#ifdef DRIVER
int cuInit(unsigned flags) { FAILS; return number("FAKE_CUDA_GPUS", 1) ? (int)flags : 100; }
int cuDriverGetVersion(int *version) { FAILS; *version = driver_version(); return 0; }
int cuDeviceGetCount(int *count) { FAILS; *count = number("FAKE_CUDA_GPUS", 1); return 0; }
int cuDeviceGet(int *device, int index) { FAILS; *device = index + 40; return index < number("FAKE_CUDA_GPUS", 1) ? 0 : 101; }
int cuDeviceGetName(char *name, int length, int device) { FAILS; snprintf(name, length, "Orin %d", device); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { FAILS; *bytes = ((size_t)8 << 30) + device; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    FAILS;
    (void)device;
    *value = attribute == 18 ? 1 : attribute == 75 ? 8 : attribute == 76 ? 7 : -1;
    return 0;
}

static int modules;
static struct { unsigned grid[3], block[3]; size_t first; int second; } launched;
int fake_modules(void) { return modules; }
const unsigned *fake_launched(void) { return launched.grid; }
int cuModuleLoadData(void **module, const void *code) {
    FAILS;
    if (strncmp(code, "\177ELF", 4)) return 200;
    modules++;
    *module = &modules;
    return 0;
}
int cuModuleGetFunction(void **function, void *module, const char *name) {
    FAILS;
    *function = module;
    return strcmp(name, "absent") ? 0 : 500;
}
int cuModuleUnload(void *module) { FAILS; modules -= module == &modules; return 0; }
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **parameters, void **extra) {
    FAILS;
    unsigned grid[] = {gx, gy, gz}, block[] = {bx, by, bz};
    memcpy(launched.grid, grid, sizeof grid);
    memcpy(launched.block, block, sizeof block);
    launched.first = *(size_t *)parameters[0];
    launched.second = *(int *)parameters[1];
    return function == &modules && stream && !shared && !extra ? 0 : 1;
}
int cuGetErrorName(int code, const char **text) { (void)code; *text = "CUDA_ERROR_OF_A_FAKE"; return 0; }
int cuGetErrorString(int code, const char **text) { (void)code; *text = "what the driver says"; return 0; }
#endif

#ifdef RUNTIME
static int held;
int fake_held(void) { return held; }

static int ready(void) { return driver_version() < RUNTIME ? 35 : 0; }

#define READY \
    do { \
        FAILS; \
        if (ready()) return ready(); \
    } while (0)

static int lend(void **made, size_t bytes) {
    *made = malloc(bytes ? bytes : 1);
    held++;
    return *made ? 0 : 2;
}
static int back(void *lent) {
    if (!lent) return 0;
    free(lent);
    held--;
    return 0;
}

int cudaRuntimeGetVersion(int *version) { FAILS; *version = RUNTIME; return 0; }
int cudaGetDeviceCount(int *count) { READY; *count = number("FAKE_CUDA_GPUS", 1); return 0; }
int cudaGetDevice(int *device) { READY; *device = 0; return 0; }
int cudaSetDevice(int device) { READY; return device < number("FAKE_CUDA_GPUS", 1) ? 0 : 101; }
int cudaMemGetInfo(size_t *spare, size_t *total) { READY; *spare = (size_t)5 << 30; *total = (size_t)8 << 30; return 0; }
int cudaMalloc(void **made, size_t bytes) { READY; return lend(made, bytes); }
int cudaFree(void *lent) { READY; return back(lent); }
int cudaHostAlloc(void **made, size_t bytes, unsigned flags) { READY; return flags & ~2u ? 1 : lend(made, bytes); }
int cudaHostGetDevicePointer(void **there, void *host, unsigned flags) { READY; *there = host; return flags; }
int cudaFreeHost(void *lent) { READY; return back(lent); }
int cudaMemcpy(void *to, const void *from, size_t bytes, int kind) { READY; memcpy(to, from, bytes); return kind != 4; }
int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream) {
    READY;
    memcpy(to, from, bytes);
    return kind != 4 || !stream;
}
int cudaStreamCreateWithFlags(void **made, unsigned flags) { READY; return flags != 1 ? 1 : lend(made, 1); }
int cudaStreamSynchronize(void *stream) { READY; return !stream; }
int cudaStreamDestroy(void *stream) { READY; return back(stream); }
int cudaStreamWaitEvent(void *stream, void *event, unsigned flags) { READY; return !stream || !event || flags; }
int cudaThreadExchangeStreamCaptureMode(int *mode) { READY; int before = 0, asked = *mode; *mode = before; return asked != 2; }
int cudaStreamBeginCapture(void *stream, int mode) { READY; return !stream || mode != 1; }
int cudaStreamEndCapture(void *stream, void **graph) { READY; return !stream || lend(graph, 1); }
int cudaGraphInstantiate(void **made, void *graph, unsigned long long flags) { READY; return !graph || flags || lend(made, 1); }
int cudaGraphLaunch(void *made, void *stream) { READY; return !made || !stream; }
int cudaGraphExecDestroy(void *made) { READY; return back(made); }
int cudaGraphDestroy(void *graph) { READY; return back(graph); }
int cudaHostRegister(void *host, size_t bytes, unsigned flags) { READY; return !host || !bytes || flags & ~11u; }
int cudaHostUnregister(void *host) { READY; return !host; }
int cudaEventQuery(void *event) { READY; return event ? 600 : 1; }
int cudaEventElapsedTime(float *ms, void *start, void *end) { READY; *ms = 1.5f; return !start || !end; }
int cudaEventCreateWithFlags(void **made, unsigned flags) { READY; return flags & ~3u ? 1 : lend(made, 1); }
int cudaEventRecord(void *event, void *stream) { READY; return !event || !stream; }
int cudaEventSynchronize(void *event) { READY; return !event; }
int cudaEventDestroy(void *event) { READY; return back(event); }
const char *cudaGetErrorName(int code) { return code == 35 ? "cudaErrorInsufficientDriver" : "cudaErrorOfAFake"; }
const char *cudaGetErrorString(int code) { return code == 35 ? "CUDA driver version is insufficient" : "what it says"; }
#endif
