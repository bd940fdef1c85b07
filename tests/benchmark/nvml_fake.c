/* An NVML of one device. FAKE_NVML_LACKS names what it refuses, as a real one does on an integrated GPU. */
#include <stdlib.h>
#include <string.h>

#define NOT_SUPPORTED 3
#define NOT_FOUND 6

typedef struct { unsigned int gpu, memory; } Utilization;
typedef struct { unsigned long long total, free, used; } Memory;

static int device, running;

static int lacks(const char *name) {
    const char *lacking = getenv("FAKE_NVML_LACKS");
    return lacking != NULL && strstr(lacking, name) != NULL ? NOT_SUPPORTED : 0;
}

static int number(const char *name, unsigned int value, unsigned int *out) {
    if (lacks(name)) return NOT_SUPPORTED;
    *out = value;
    return 0;
}

int fake_running(void) { return running; }
int nvmlInit_v2(void) { if (lacks("init")) return NOT_SUPPORTED; running++; return 0; }
int nvmlShutdown(void) { running--; return 0; }

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **handle) {
    *handle = &device;
    return index == 0 ? 0 : NOT_FOUND;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    *handle = &device;
    return strcmp(uuid, "GPU-00000000-1111") == 0 ? 0 : NOT_FOUND;
}

int nvmlDeviceGetName(void *handle, char *out, unsigned int size) {
    const char *name = getenv("FAKE_NVML_NAME");
    if (handle != &device) return NOT_FOUND;
    strncpy(out, name != NULL ? name : "NVIDIA L4", size);
    return 0;
}

int nvmlSystemGetDriverVersion(char *out, unsigned int size) { strncpy(out, "570.86.15", size); return 0; }

int nvmlDeviceGetUtilizationRates(void *handle, Utilization *out) {
    if (handle != &device || lacks("load")) return NOT_SUPPORTED;
    out->gpu = 93, out->memory = 40;
    return 0;
}

int nvmlDeviceGetMemoryInfo(void *handle, Memory *out) {
    if (handle != &device || lacks("memory")) return NOT_SUPPORTED;
    out->total = 24ULL << 30, out->free = 20ULL << 30, out->used = 4ULL << 30;
    return 0;
}

int nvmlDeviceGetClockInfo(void *handle, unsigned int kind, unsigned int *out) {
    return handle == &device && kind == 1 ? number("clock", 1950, out) : NOT_FOUND;
}

int nvmlDeviceGetMaxClockInfo(void *handle, unsigned int kind, unsigned int *out) {
    return handle == &device && kind == 1 ? number("clock", 2040, out) : NOT_FOUND;
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned int *out) {
    return handle == &device ? number("power", 61500, out) : NOT_FOUND;
}

int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned int *out) {
    return handle == &device ? number("power", 72000, out) : NOT_FOUND;
}

int nvmlDeviceGetTemperature(void *handle, unsigned int sensor, unsigned int *out) {
    return handle == &device && sensor == 0 ? number("heat", 71, out) : NOT_FOUND;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *out) {
    if (handle != &device || lacks("throttle")) return NOT_SUPPORTED;
    *out = 0x1 | 0x4 | 0x20;
    return 0;
}
