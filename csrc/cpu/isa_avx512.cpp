#define ISA isa_avx512
#define ISA_NAME "avx512"
#include "isa.inl"
