/* Stand-ins for three of NVIDIA's GStreamer elements, with the pad templates and properties that those have.
 *
 * A text that does not link here does not link on a Jetson: memory of "NVMM" must be brought back by nvvidconv, which
 * packs no BGR. Pictures are real: decoded by GStreamer's own decoders or made by videotestsrc.
 * Listings of gst-inspect-1.0 on Jetsons: nvvidconv https://github.com/clydemcqueen/gscam2/issues/42, nvv4l2decoder
 * https://github.com/svpcom/wfb-ng-osd/issues/12; the decoder of Jetson Linux 39.2 has no enable-max-performance:
 * https://github.com/OE4T/meta-tegra-community/pull/187.
 */
#include <gst/base/gstbasetransform.h>
#include <gst/gst.h>

#define PACKAGE "vajra-edge tests"
#define NVMM "memory:NVMM"
#define SIZE ", width=[1,2147483647], height=[1,2147483647], framerate=[0/1,2147483647/1]"
#define CONVERTED "I420, UYVY, YUY2, YVYU, NV12, NV16, NV24, P010_10LE, GRAY8, BGRx, RGBA, Y42B"

/* Calls plain memory NVMM, or NVMM plain: no byte is touched. */
typedef struct { GstBaseTransform parent; gboolean to_nvmm; } Rename;
typedef GstBaseTransformClass RenameClass;
G_DEFINE_TYPE(Rename, rename, GST_TYPE_BASE_TRANSFORM)

static GstStaticPadTemplate any_sink = GST_STATIC_PAD_TEMPLATE("sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS_ANY);
static GstStaticPadTemplate any_src = GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS_ANY);

static GstCaps *renamed(GstBaseTransform *base, GstPadDirection from, GstCaps *caps, GstCaps *filter) {
  gboolean nvmm = (from == GST_PAD_SINK) == ((Rename *)base)->to_nvmm;
  GstCaps *made = gst_caps_copy(caps);
  for (guint i = 0; i < gst_caps_get_size(made); i++)
    gst_caps_set_features(made, i, nvmm ? gst_caps_features_new(NVMM, NULL) : gst_caps_features_new_empty());
  if (filter) {
    GstCaps *both = gst_caps_intersect_full(filter, made, GST_CAPS_INTERSECT_FIRST);
    gst_caps_unref(made);
    made = both;
  }
  return made;
}

static gboolean same_size(GstBaseTransform *base, GstCaps *caps, gsize *size) { return FALSE; }
static gboolean other_size(GstBaseTransform *base, GstPadDirection from, GstCaps *caps, gsize size, GstCaps *other, gsize *made) {
  *made = size;
  return TRUE;
}
static GstFlowReturn same_memory(GstBaseTransform *base, GstBuffer *from, GstBuffer **made) {
  *made = gst_buffer_copy(from);
  return GST_FLOW_OK;
}
static GstFlowReturn untouched(GstBaseTransform *base, GstBuffer *buffer) { return GST_FLOW_OK; }

static void rename_class_init(RenameClass *class) {
  GstElementClass *element = GST_ELEMENT_CLASS(class);
  gst_element_class_add_static_pad_template(element, &any_sink);
  gst_element_class_add_static_pad_template(element, &any_src);
  gst_element_class_set_static_metadata(element, "Rename", "Filter", "Calls memory NVMM, or not", PACKAGE);
  class->transform_caps = renamed;
  class->get_unit_size = same_size;
  class->transform_size = other_size;
  class->prepare_output_buffer = same_memory;
  class->transform_ip = untouched;
}
static void rename_init(Rename *self) { gst_base_transform_set_in_place(GST_BASE_TRANSFORM(self), TRUE); }

static GstElement *rename_new(gboolean to_nvmm) {
  Rename *made = g_object_new(rename_get_type(), NULL);
  made->to_nvmm = to_nvmm;
  return GST_ELEMENT(made);
}

static GstElement *filter_new(const gchar *text) {
  GstElement *made = gst_element_factory_make("capsfilter", NULL);
  GstCaps *caps = gst_caps_from_string(text);
  g_object_set(made, "caps", caps, NULL);
  gst_caps_unref(caps);
  return made;
}

static void expose(gpointer bin, GstElement *element, const gchar *name) {
  GstPadTemplate *template = gst_element_class_get_pad_template(GST_ELEMENT_GET_CLASS(bin), name);
  GstPad *inner = gst_element_get_static_pad(element, name);
  gst_element_add_pad(GST_ELEMENT(bin), gst_ghost_pad_new_from_template(name, inner, template));
  gst_object_unref(inner);
}

/* nvvidconv: between both memories, any of its formats. */
typedef struct { GstBin parent; } Convert;
typedef GstBinClass ConvertClass;
G_DEFINE_TYPE(Convert, convert, GST_TYPE_BIN)
static GstStaticPadTemplate convert_sink = GST_STATIC_PAD_TEMPLATE("sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS("video/x-raw(" NVMM "), format={" CONVERTED "}" SIZE));
static GstStaticPadTemplate convert_src = GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS("video/x-raw, format={" CONVERTED "}" SIZE));
static void convert_class_init(ConvertClass *class) {
  gst_element_class_add_static_pad_template(GST_ELEMENT_CLASS(class), &convert_sink);
  gst_element_class_add_static_pad_template(GST_ELEMENT_CLASS(class), &convert_src);
  gst_element_class_set_static_metadata(GST_ELEMENT_CLASS(class), "NvVidConv Plugin", "Filter/Converter/Video/Scaler", "stand-in", PACKAGE);
}
static void convert_init(Convert *self) {
  GstElement *plain = rename_new(FALSE), *convert = gst_element_factory_make("videoconvert", NULL);
  GstElement *formats = filter_new("video/x-raw, format={" CONVERTED "}");
  gst_bin_add_many(GST_BIN(self), plain, convert, formats, NULL);
  gst_element_link_many(plain, convert, formats, NULL);
  expose(self, plain, "sink");
  expose(self, formats, "src");
}

/* nvv4l2decoder: parsed streams in, NV12 in NVMM out. */
typedef struct { GstBin parent; GstElement *convert; } Decode;
typedef GstBinClass DecodeClass;
G_DEFINE_TYPE(Decode, decode, GST_TYPE_BIN)
static GstStaticPadTemplate decode_sink = GST_STATIC_PAD_TEMPLATE("sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS(
  "image/jpeg; video/x-h264, stream-format=byte-stream, alignment=au; video/x-h265, stream-format=byte-stream, alignment=au; "
  "video/mpeg, mpegversion=4, systemstream=false; video/mpeg, mpegversion=[1,2], systemstream=false; video/x-vp8; video/x-vp9; video/x-av1"));
static GstStaticPadTemplate decode_src = GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS("video/x-raw(" NVMM ")" SIZE));
static void decode_class_init(DecodeClass *class) {
  gst_element_class_add_static_pad_template(GST_ELEMENT_CLASS(class), &decode_sink);
  gst_element_class_add_static_pad_template(GST_ELEMENT_CLASS(class), &decode_src);
  gst_element_class_set_static_metadata(GST_ELEMENT_CLASS(class), "NVIDIA v4l2 video decoder", "Codec/Decoder/Video", "stand-in", PACKAGE);
}
static void decoded(GstElement *decoder, GstPad *pad, Decode *self) {
  GstPad *sink = gst_element_get_static_pad(self->convert, "sink");
  gst_pad_link(pad, sink);
  gst_object_unref(sink);
}
static void decode_init(Decode *self) {
  GstElement *formats = gst_element_factory_make("capsfilter", NULL);
  GstElement *decoder = gst_element_factory_make("decodebin", NULL), *nv12 = filter_new("video/x-raw, format=NV12");
  GstElement *nvmm = rename_new(TRUE);
  self->convert = gst_element_factory_make("videoconvert", NULL);
  g_object_set(formats, "caps", gst_static_caps_get(&decode_sink.static_caps), NULL);
  gst_bin_add_many(GST_BIN(self), formats, decoder, self->convert, nv12, nvmm, NULL);
  gst_element_link(formats, decoder);
  gst_element_link_many(self->convert, nv12, nvmm, NULL);
  g_signal_connect(decoder, "pad-added", G_CALLBACK(decoded), self);
  expose(self, formats, "sink");
  expose(self, nvmm, "src");
}

/* nvarguscamerasrc: sensors 0 and 1 are there. */
typedef struct { GstBin parent; gint sensor; } Argus;
typedef GstBinClass ArgusClass;
G_DEFINE_TYPE(Argus, argus, GST_TYPE_BIN)
static GstStaticPadTemplate argus_src = GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS("video/x-raw(" NVMM "), format={NV12, P010_10LE}" SIZE));
static void argus_set(GObject *object, guint id, const GValue *value, GParamSpec *spec) { ((Argus *)object)->sensor = g_value_get_int(value); }
static void argus_get(GObject *object, guint id, GValue *value, GParamSpec *spec) { g_value_set_int(value, ((Argus *)object)->sensor); }
static GstStateChangeReturn argus_change(GstElement *element, GstStateChange change) {
  if (change == GST_STATE_CHANGE_READY_TO_PAUSED && ((Argus *)element)->sensor > 1) {
    GST_ELEMENT_ERROR(element, RESOURCE, NOT_FOUND, ("No cameras available"), (NULL));
    return GST_STATE_CHANGE_FAILURE;
  }
  return GST_ELEMENT_CLASS(argus_parent_class)->change_state(element, change);
}
static void argus_class_init(ArgusClass *class) {
  G_OBJECT_CLASS(class)->set_property = argus_set;
  G_OBJECT_CLASS(class)->get_property = argus_get;
  g_object_class_install_property(G_OBJECT_CLASS(class), 1, g_param_spec_int("sensor-id", "sensor", "sensor", 0, 255, 0, G_PARAM_READWRITE));
  GST_ELEMENT_CLASS(class)->change_state = argus_change;
  gst_element_class_add_static_pad_template(GST_ELEMENT_CLASS(class), &argus_src);
  gst_element_class_set_static_metadata(GST_ELEMENT_CLASS(class), "NvArgusCameraSrc", "Video/Capture", "stand-in", PACKAGE);
}
static void argus_init(Argus *self) {
  GstElement *source = gst_element_factory_make("videotestsrc", NULL), *nv12 = filter_new("video/x-raw, format=NV12"), *nvmm = rename_new(TRUE);
  gst_util_set_object_arg(G_OBJECT(source), "pattern", "red");
  g_object_set(source, "is-live", TRUE, NULL);
  gst_bin_add_many(GST_BIN(self), source, nv12, nvmm, NULL);
  gst_element_link_many(source, nv12, nvmm, NULL);
  expose(self, nvmm, "src");
  GST_OBJECT_FLAG_SET(self, GST_ELEMENT_FLAG_SOURCE);
}

static gboolean start(GstPlugin *plugin) {
  return gst_element_register(plugin, "nvvidconv", GST_RANK_NONE, convert_get_type()) &&
         gst_element_register(plugin, "nvv4l2decoder", GST_RANK_NONE, decode_get_type()) &&
         gst_element_register(plugin, "nvarguscamerasrc", GST_RANK_NONE, argus_get_type());
}
GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, nvvideo4linux2, "stand-ins", start, "1.0", "LGPL", PACKAGE, "https://example.org")
