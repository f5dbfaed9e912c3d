#version 450 core
// What stands for the room where the display is opaque: dark, a little lighter towards the horizon, so that up and down
// are seen, yet never bright enough to count as lit. In: direction of sight in stage. Out: display-encoded sRGB.
in vec3 v_direction;
layout(location = 0) out vec4 out_colour;

void main() {
    float height = v_direction.y * inversesqrt(dot(v_direction, v_direction));
    float glow = 1.0 - abs(height);
    // Half a level of fixed noise (Jimenez 2014) hides the steps of eight bits.
    float noise = fract(52.9829189 * fract(dot(gl_FragCoord.xy, vec2(0.06711056, 0.00583715)))) - 0.5;
    out_colour = vec4(noise / 255.0 + mix(vec3(0.020, 0.027, 0.038), vec3(0.043, 0.055, 0.070), glow * glow), 1.0);
}
