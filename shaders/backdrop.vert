#version 450 core
// One triangle over the whole picture. Out: clip space, and the direction of sight in stage.
#include "camera.glsl"
out vec3 v_direction;

void main() {
    vec2 corner = vec2(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0);
    vec2 place = (corner * 0.5 + 0.5) * viewport.xy;
    v_direction = sight_corner.xyz + place.x * sight_right.xyz + place.y * sight_up.xyz;
    gl_Position = vec4(corner, 1.0, 1.0);
}
