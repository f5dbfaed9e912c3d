#version 450 core
// Normals of a deformed surface: for each vertex the sum of its triangles' cross products (weighted by area).
// In: positions [m], triangles, and for each vertex the triangles it belongs to (compressed rows). Out: normals, image.
layout(local_size_x = 64) in;
layout(std430, binding = 2) readonly buffer Positions { float positions[]; };
layout(std430, binding = 3) readonly buffer Triangles { uint triangles[]; };
layout(std430, binding = 4) readonly buffer Rows { uint rows[]; };
layout(std430, binding = 5) readonly buffer Members { uint members[]; };
layout(std430, binding = 6) writeonly buffer Normals { float normals[]; };
uniform uint vertex_count;

vec3 position(uint vertex) {
    return vec3(positions[3u * vertex], positions[3u * vertex + 1u], positions[3u * vertex + 2u]);
}

void main() {
    uint vertex = gl_GlobalInvocationID.x;
    if (vertex >= vertex_count) return;
    vec3 normal = vec3(0.0);
    for (uint i = rows[vertex]; i < rows[vertex + 1u]; ++i) {
        uint first = 3u * members[i];
        vec3 a = position(triangles[first]);
        vec3 b = position(triangles[first + 1u]);
        vec3 c = position(triangles[first + 2u]);
        normal += cross(b - a, c - a);
    }
    normals[3u * vertex] = normal.x;
    normals[3u * vertex + 1u] = normal.y;
    normals[3u * vertex + 2u] = normal.z;
}
