/* A V4L2 camera without a kernel: loaded before libc, it answers what is asked of /dev/null as a driver would.
 *
 * VIDEO_FORMAT is its only format, 64 x 48 pixels. It hands out the files 0, 1, 2 ... of the folder VIDEO_FRAMES, byte
 * for byte, and is unplugged after the last. A file of the four bytes LOST is a buffer that the driver marks as an error
 * with nothing in it, as uvcvideo does with a frame of which packets are missing. STREAMON_ERRNO: it does not start.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define WIDTH 64
#define HEIGHT 48
#define BUFFER_BYTES (1 << 16)
#define MOST 32
#define EACH_US 5000

static unsigned char *buffers[MOST];
static unsigned queued[MOST], put, taken, frame;

static int is_ours(int fd) {
  struct stat found;
  return fstat(fd, &found) == 0 && S_ISCHR(found.st_mode) && found.st_rdev == makedev(1, 3);
}

static int refuse(int number) { errno = number; return -1; }

static unsigned code(void) {
  const char *name = getenv("VIDEO_FORMAT");
  return v4l2_fourcc(name[0], name[1], name[2], name[3]);
}

static int capability(struct v4l2_capability *told) {
  memset(told, 0, sizeof *told);
  strcpy((char *)told->driver, "stand-in");
  told->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
  told->capabilities = told->device_caps | V4L2_CAP_DEVICE_CAPS;
  return 0;
}

static int describe(struct v4l2_fmtdesc *asked) {
  if (asked->type != V4L2_BUF_TYPE_VIDEO_CAPTURE || asked->index > 0) return refuse(EINVAL);
  asked->pixelformat = code();
  return 0;
}

static int format(struct v4l2_format *asked) {
  if (asked->type != V4L2_BUF_TYPE_VIDEO_CAPTURE) return refuse(EINVAL);
  asked->fmt.pix = (struct v4l2_pix_format){
      .width = WIDTH, .height = HEIGHT, .pixelformat = code(), .field = V4L2_FIELD_NONE, .sizeimage = BUFFER_BYTES};
  return 0;
}

static int rate(struct v4l2_streamparm *asked) {
  asked->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
  asked->parm.capture.timeperframe = (struct v4l2_fract){1, 30};
  return 0;
}

static int place(struct v4l2_buffer *asked) {
  asked->length = BUFFER_BYTES;
  asked->m.offset = asked->index * BUFFER_BYTES;
  return 0;
}

static int start(void) {
  const char *number = getenv("STREAMON_ERRNO");
  return number ? refuse(atoi(number)) : 0;
}

static int next(struct v4l2_buffer *asked) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%u", getenv("VIDEO_FRAMES"), frame++);
  int file = open(path, O_RDONLY);
  if (file < 0) return refuse(ENODEV);
  usleep(EACH_US);
  asked->index = queued[taken++ % MOST];
  asked->length = BUFFER_BYTES;
  asked->bytesused = read(file, buffers[asked->index], BUFFER_BYTES);
  asked->flags = 0;
  close(file);
  if (asked->bytesused == 4 && memcmp(buffers[asked->index], "LOST", 4) == 0) {
    asked->flags = V4L2_BUF_FLAG_ERROR;
    asked->bytesused = 0;
  }
  return 0;
}

static int answer(unsigned long request, void *asked) {
  switch (request) {
    case VIDIOC_QUERYCAP: return capability(asked);
    case VIDIOC_ENUM_FMT: return describe(asked);
    case VIDIOC_G_FMT: case VIDIOC_S_FMT: case VIDIOC_TRY_FMT: return format(asked);
    case VIDIOC_G_PARM: case VIDIOC_S_PARM: return rate(asked);
    case VIDIOC_G_INPUT: case VIDIOC_S_INPUT: case VIDIOC_STREAMOFF: return 0;
    case VIDIOC_REQBUFS: put = taken = 0; return 0;
    case VIDIOC_QUERYBUF: return place(asked);
    case VIDIOC_QBUF: queued[put++ % MOST] = ((struct v4l2_buffer *)asked)->index; return 0;
    case VIDIOC_STREAMON: return start();
    case VIDIOC_DQBUF: return put == taken ? refuse(EAGAIN) : next(asked);
    default: return refuse(ENOTTY);
  }
}

int ioctl(int fd, unsigned long request, ...) {
  static int (*libc)(int, unsigned long, ...);
  va_list rest;
  va_start(rest, request);
  void *asked = va_arg(rest, void *);
  va_end(rest);
  if (_IOC_TYPE(request) == 'V' && is_ours(fd)) return answer((unsigned)request, asked);
  if (!libc) *(void **)&libc = dlsym(RTLD_NEXT, "ioctl");
  return libc(fd, request, asked);
}

void *mmap64(void *wanted, size_t size, int protection, int flags, int fd, off64_t offset) {
  static void *(*libc)(void *, size_t, int, int, int, off64_t);
  if (!libc) *(void **)&libc = dlsym(RTLD_NEXT, "mmap64");
  if (fd < 0 || !is_ours(fd)) return libc(wanted, size, protection, flags, fd, offset);
  void *made = libc(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  buffers[offset / BUFFER_BYTES % MOST] = made;
  return made;
}

void *mmap(void *wanted, size_t size, int protection, int flags, int fd, off_t offset) {
  return mmap64(wanted, size, protection, flags, fd, offset);
}
