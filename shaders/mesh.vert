#version 450 core
// A structure's surface. In: position [m] and normal (any length) in image. Out: both in stage, position also in image.
#include "camera.glsl"
#include "object.glsl"
in vec3 in_position;
in vec3 in_normal;
out vec3 v_normal;
out vec3 v_to_eye;
out vec3 v_image;
// Handed on, and not read again per fragment: loads from a buffer are undefined in the helper pixels that derivatives use.
flat out vec4 v_colour;
flat out vec4 v_look;
flat out vec4 v_state;

void main() {
    Object o = objects[object_index];
    v_colour = o.colour;
    v_look = o.look;
    v_state = o.state;
    mat4 stage_from_image = o.stage_from_image;
    vec4 position = stage_from_image * vec4(in_position, 1.0);
    v_normal = mat3(stage_from_image) * normalize(in_normal);
    v_to_eye = eye_in_stage.xyz - position.xyz;
    v_image = in_position;
    gl_Position = clip_from_stage * position;
}
