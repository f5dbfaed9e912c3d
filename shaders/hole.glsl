// What is left of a fragment near the tips [0..1]: nothing may cover a tip. Needs camera.glsl; screen space [px].
float outside_holes(bool mark) {
    float left = 1.0;
    for (int i = 0; i < int(flags.z); ++i) {
        float radius = mark ? holes[i].w : holes[i].z;
        left = min(left, smoothstep(radius, radius + 1.5, distance(gl_FragCoord.xy, holes[i].xy)));
    }
    return left;
}
