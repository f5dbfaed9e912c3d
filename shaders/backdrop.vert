#version 450 core
// One triangle over the whole picture. Out: clip space, and the direction of sight in stage.
#include "camera.glsl"
out vec3 v_direction;

void main() {
    vec2 corner = vec2(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0);
    vec4 far = stage_from_clip * vec4(corner, 1.0, 1.0);
    v_direction = far.xyz / far.w - eye_in_stage.xyz;
    gl_Position = vec4(corner, 1.0, 1.0);
}
