#define ISA isa_generic
#define ISA_NAME "generic"
#include "isa.inl"
