#define ISA isa_avx2
#define ISA_NAME "avx2"
#include "isa.inl"
