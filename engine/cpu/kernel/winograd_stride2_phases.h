// All phases for winograd_stride2.h, which comes first.

#define INPUT INPUT5X5
#define OUTPUT OUTPUT5X5
#define SPAN 5
#define FIFTHROW(x) x
#define FIFTHCOLUMN(x) x
#include "winograd_stride2_phase.h"
#include "winograd_output_epilogue.h"
#undef INPUT
#undef OUTPUT
#undef SPAN
#undef FIFTHROW
#undef FIFTHCOLUMN

#define INPUT INPUT5X4
#define OUTPUT OUTPUT5X4
#define SPAN 4
#define FIFTHROW(x) x
#define FIFTHCOLUMN(x)
#include "winograd_stride2_phase.h"
#undef INPUT
#undef OUTPUT
#undef SPAN
#undef FIFTHROW
#undef FIFTHCOLUMN

#define INPUT INPUT4X5
#define OUTPUT OUTPUT4X5
#define SPAN 5
#define FIFTHROW(x)
#define FIFTHCOLUMN(x) x
#include "winograd_stride2_phase.h"
#undef INPUT
#undef OUTPUT
#undef SPAN
#undef FIFTHROW
#undef FIFTHCOLUMN

#define INPUT INPUT4X4
#define OUTPUT OUTPUT4X4
#define SPAN 4
#define FIFTHROW(x)
#define FIFTHCOLUMN(x)
#include "winograd_stride2_phase.h"
#undef INPUT
#undef OUTPUT
#undef SPAN
#undef FIFTHROW
#undef FIFTHCOLUMN
