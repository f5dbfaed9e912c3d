#version 450 core
// A structure's surface. In: position [m] and normal (any length) in image. Out: the normal in stage; if it is MARKED with
// a pattern, also the position in image.
#include "camera.glsl"
#include "object.glsl"
in vec3 in_position;
in vec3 in_normal;
out vec3 v_normal;
#ifdef MARKED
out vec3 v_image;
#endif

void main() {
    vec4 position = object.stage_from_image * vec4(in_position, 1.0);
    v_normal = mat3(object.stage_from_image) * normalize(in_normal);
#ifdef MARKED
    v_image = in_position;
#endif
    gl_Position = clip_from_stage * position;
}
