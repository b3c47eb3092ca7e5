// Behaviour of ECP5 cells for which Yosys ships only black boxes, as far as Weft uses them.
// After Lattice's description of the sysDSP slice (FPGA-TN-02205): signed 18 x 18 product, optional
// registers before and behind it on CLK0, each with one of four clock enables.

module MULT18X18D (
    A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0,
    B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0,
    C17, C16, C15, C14, C13, C12, C11, C10, C9, C8, C7, C6, C5, C4, C3, C2, C1, C0,
    SIGNEDA, SIGNEDB, SOURCEA, SOURCEB, CLK3, CLK2, CLK1, CLK0, CE3, CE2, CE1, CE0,
    RST3, RST2, RST1, RST0,
    P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19,
        P18, P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
);
    parameter GSR = "ENABLED";
    parameter REG_INPUTA_CLK = "NONE";
    parameter REG_INPUTA_CE = "CE0";
    parameter REG_INPUTA_RST = "RST0";
    parameter REG_INPUTB_CLK = "NONE";
    parameter REG_INPUTB_CE = "CE0";
    parameter REG_INPUTB_RST = "RST0";
    parameter REG_OUTPUT_CLK = "NONE";
    parameter REG_OUTPUT_CE = "CE0";
    parameter REG_OUTPUT_RST = "RST0";

    input A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0;
    input B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0;
    input C17, C16, C15, C14, C13, C12, C11, C10, C9, C8, C7, C6, C5, C4, C3, C2, C1, C0;
    input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB, CLK3, CLK2, CLK1, CLK0, CE3, CE2, CE1, CE0;
    input RST3, RST2, RST1, RST0;
    output P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20,
        P19, P18, P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2,
        P1, P0;

    wire [17:0] a = {A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2,
        A1, A0};
    wire [17:0] b = {B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2,
        B1, B0};
    reg [17:0] a_register, b_register;
    reg [35:0] product_register;

    wire enable_a = REG_INPUTA_CE == "CE0" ? CE0 : REG_INPUTA_CE == "CE1" ? CE1 :
        REG_INPUTA_CE == "CE2" ? CE2 : CE3;
    wire enable_b = REG_INPUTB_CE == "CE0" ? CE0 : REG_INPUTB_CE == "CE1" ? CE1 :
        REG_INPUTB_CE == "CE2" ? CE2 : CE3;
    wire enable_p = REG_OUTPUT_CE == "CE0" ? CE0 : REG_OUTPUT_CE == "CE1" ? CE1 :
        REG_OUTPUT_CE == "CE2" ? CE2 : CE3;

    wire [17:0] left = REG_INPUTA_CLK == "NONE" ? a : a_register;
    wire [17:0] right = REG_INPUTB_CLK == "NONE" ? b : b_register;
    wire [35:0] left_wide = {{18{SIGNEDA & left[17]}}, left};
    wire [35:0] right_wide = {{18{SIGNEDB & right[17]}}, right};
    wire [35:0] product = left_wide * right_wide;
    assign {P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20,
        P19, P18, P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2,
        P1, P0} = REG_OUTPUT_CLK == "NONE" ? product : product_register;

    always @(posedge CLK0) begin
        if (enable_a) a_register <= a;
        if (enable_b) b_register <= b;
        if (enable_p) product_register <= product;
    end
endmodule

// Block RAM, after Lattice's memory usage guide (FPGA-TN-02204): 2,048 bytes of nine bits, two
// ports of 1 to 18 bits, or one that writes (A, 36 bits) and one that reads (B). Words of 18 and 36
// bits have byte enables on their lowest address lines, words of less than nine bits do not reach
// the ninth. What a port reads of bytes that the other one writes at the same edge is undefined:
// here it is the inverse of what was there, so that a design that depends on it goes wrong. So is
// what stays of a byte that both write: here all of it is port B's. Both ports on one clock.

module DP16KD (
    DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4,
    DIA3, DIA2, DIA1, DIA0,
    ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
    DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4,
    DOA3, DOA2, DOA1, DOA0,
    CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0,
    DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4,
    DIB3, DIB2, DIB1, DIB0,
    ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
    DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4,
    DOB3, DOB2, DOB1, DOB0,
    CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0
);
    parameter DATA_WIDTH_A = 18;
    parameter REGMODE_A = "NOREG";
    parameter WRITEMODE_A = "NORMAL";
    parameter CSDECODE_A = "0b000";
    parameter CLKAMUX = "CLKA";
    parameter DATA_WIDTH_B = 18;
    parameter REGMODE_B = "NOREG";
    parameter WRITEMODE_B = "NORMAL";
    parameter CSDECODE_B = "0b000";
    parameter CLKBMUX = "CLKB";
    parameter RESETMODE = "SYNC";
    parameter ASYNC_RESET_RELEASE = "SYNC";
    parameter GSR = "ENABLED";
    parameter WID = 0;
    parameter INIT_DATA = "STATIC";
    parameter [319:0] INITVAL_00 = 0, INITVAL_01 = 0;
    parameter [319:0] INITVAL_02 = 0, INITVAL_03 = 0;
    parameter [319:0] INITVAL_04 = 0, INITVAL_05 = 0;
    parameter [319:0] INITVAL_06 = 0, INITVAL_07 = 0;
    parameter [319:0] INITVAL_08 = 0, INITVAL_09 = 0;
    parameter [319:0] INITVAL_0A = 0, INITVAL_0B = 0;
    parameter [319:0] INITVAL_0C = 0, INITVAL_0D = 0;
    parameter [319:0] INITVAL_0E = 0, INITVAL_0F = 0;
    parameter [319:0] INITVAL_10 = 0, INITVAL_11 = 0;
    parameter [319:0] INITVAL_12 = 0, INITVAL_13 = 0;
    parameter [319:0] INITVAL_14 = 0, INITVAL_15 = 0;
    parameter [319:0] INITVAL_16 = 0, INITVAL_17 = 0;
    parameter [319:0] INITVAL_18 = 0, INITVAL_19 = 0;
    parameter [319:0] INITVAL_1A = 0, INITVAL_1B = 0;
    parameter [319:0] INITVAL_1C = 0, INITVAL_1D = 0;
    parameter [319:0] INITVAL_1E = 0, INITVAL_1F = 0;
    parameter [319:0] INITVAL_20 = 0, INITVAL_21 = 0;
    parameter [319:0] INITVAL_22 = 0, INITVAL_23 = 0;
    parameter [319:0] INITVAL_24 = 0, INITVAL_25 = 0;
    parameter [319:0] INITVAL_26 = 0, INITVAL_27 = 0;
    parameter [319:0] INITVAL_28 = 0, INITVAL_29 = 0;
    parameter [319:0] INITVAL_2A = 0, INITVAL_2B = 0;
    parameter [319:0] INITVAL_2C = 0, INITVAL_2D = 0;
    parameter [319:0] INITVAL_2E = 0, INITVAL_2F = 0;
    parameter [319:0] INITVAL_30 = 0, INITVAL_31 = 0;
    parameter [319:0] INITVAL_32 = 0, INITVAL_33 = 0;
    parameter [319:0] INITVAL_34 = 0, INITVAL_35 = 0;
    parameter [319:0] INITVAL_36 = 0, INITVAL_37 = 0;
    parameter [319:0] INITVAL_38 = 0, INITVAL_39 = 0;
    parameter [319:0] INITVAL_3A = 0, INITVAL_3B = 0;
    parameter [319:0] INITVAL_3C = 0, INITVAL_3D = 0;
    parameter [319:0] INITVAL_3E = 0, INITVAL_3F = 0;

    input DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5,
        DIA4, DIA3, DIA2, DIA1, DIA0;
    input ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0;
    input CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0;
    output DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5,
        DOA4, DOA3, DOA2, DOA1, DOA0;
    input DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5,
        DIB4, DIB3, DIB2, DIB1, DIB0;
    input ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0;
    input CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0;
    output DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5,
        DOB4, DOB3, DOB2, DOB1, DOB0;

    reg [8:0] cells [0:2047];
    localparam [64 * 320 - 1:0] INITIAL = {
        INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C, INITVAL_3B, INITVAL_3A, INITVAL_39,
        INITVAL_38, INITVAL_37, INITVAL_36, INITVAL_35, INITVAL_34, INITVAL_33, INITVAL_32,
        INITVAL_31, INITVAL_30, INITVAL_2F, INITVAL_2E, INITVAL_2D, INITVAL_2C, INITVAL_2B,
        INITVAL_2A, INITVAL_29, INITVAL_28, INITVAL_27, INITVAL_26, INITVAL_25, INITVAL_24,
        INITVAL_23, INITVAL_22, INITVAL_21, INITVAL_20, INITVAL_1F, INITVAL_1E, INITVAL_1D,
        INITVAL_1C, INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18, INITVAL_17, INITVAL_16,
        INITVAL_15, INITVAL_14, INITVAL_13, INITVAL_12, INITVAL_11, INITVAL_10, INITVAL_0F,
        INITVAL_0E, INITVAL_0D, INITVAL_0C, INITVAL_0B, INITVAL_0A, INITVAL_09, INITVAL_08,
        INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04, INITVAL_03, INITVAL_02, INITVAL_01,
        INITVAL_00
    };
    integer n;
    initial for (n = 0; n < 2048; n = n + 1) cells[n] = INITIAL[20 * (n / 2) + 9 * (n % 2) +: 9];

    wire [17:0] data_a = {DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8,
        DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0};
    wire [13:0] address_a = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3,
        ADA2, ADA1, ADA0};
    wire [17:0] data_b = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8,
        DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0};
    wire [13:0] address_b = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3,
        ADB2, ADB1, ADB0};

    // A port sees four bytes from `first` on, and of them the bits of `mask`, `shift` bits up.
    function [10:0] first(input integer width, input [13:0] address);
        first = address[13:3] & ~(width == 36 ? 11'd3 : width == 18 ? 11'd1 : 11'd0);
    endfunction
    function [2:0] shift(input integer width, input [13:0] address);
        shift = width == 1 ? address[2:0] : width == 2 ? {address[2:1], 1'b0} :
            width == 4 ? {address[2], 2'b0} : 3'd0;
    endfunction
    function [35:0] mask(input integer width, input [13:0] address);
        case (width)
            36: mask = {{9{address[3]}}, {9{address[2]}}, {9{address[1]}}, {9{address[0]}}};
            18: mask = {{9{address[1]}}, {9{address[0]}}};
            default: mask = ((36'd1 << width) - 1) << shift(width, address);
        endcase
    endfunction

    wire [10:0] first_a = first(DATA_WIDTH_A, address_a);
    wire [2:0] shift_a = shift(DATA_WIDTH_A, address_a);
    wire enable_a = CEA && {CSA2, CSA1, CSA0} == (
        {CSDECODE_A[16], CSDECODE_A[8], CSDECODE_A[0]});
    wire [35:0] mask_a = mask(DATA_WIDTH_A, address_a) & {36{enable_a && WEA}};
    wire [10:0] first_b = first(DATA_WIDTH_B, address_b);
    wire [2:0] shift_b = shift(DATA_WIDTH_B, address_b);
    wire enable_b = CEB && {CSB2, CSB1, CSB0} == (
        {CSDECODE_B[16], CSDECODE_B[8], CSDECODE_B[0]});
    wire [35:0] mask_b = mask(DATA_WIDTH_B, address_b) & {36{enable_b && WEB}};
    wire [35:0] write_a = (DATA_WIDTH_A == 36 ? {data_b, data_a} : {18'd0, data_a}) << shift_a;
    wire [35:0] write_b = {18'd0, data_b} << shift_b;

    wire [35:0] old_a = {cells[first_a + 11'd3], cells[first_a + 11'd2], cells[first_a + 11'd1],
        cells[first_a]};
    wire [35:0] new_a = (old_a & ~mask_a) | (write_a & mask_a);
    wire [35:0] old_b = {cells[first_b + 11'd3], cells[first_b + 11'd2], cells[first_b + 11'd1],
        cells[first_b]};
    wire [35:0] new_b = (old_b & ~mask_b) | (write_b & mask_b);

    wire clock_a = CLKAMUX == "INV" ? ~CLKA : CLKA;
    // One process, because two that write the same byte would do so in the simulator's order.
    integer w;
    always @(posedge clock_a) begin
        for (w = 0; w < 4; w = w + 1)
            if (|mask_a[9 * w +: 9]) cells[first_a + w] <= new_a[9 * w +: 9];
        for (w = 0; w < 4; w = w + 1)
            if (|mask_b[9 * w +: 9]) cells[first_b + w] <= new_b[9 * w +: 9];
    end

    reg [35:0] read_a, latch_a = 0, register_a = 0;
    integer a, b_of_a;
    always @(posedge clock_a) begin
        read_a = WEA && WRITEMODE_A == "WRITETHROUGH" ? new_a : old_a;
        for (a = 0; a < 4; a = a + 1) begin
            for (b_of_a = 0; b_of_a < 4; b_of_a = b_of_a + 1)
                if (|mask_b[9 * b_of_a +: 9] && first_a + a == first_b + b_of_a)
                    read_a[9 * a +: 9] = ~old_a[9 * a +: 9];
        end
        if (RSTA) latch_a <= 0;
        else if (enable_a && (!WEA || WRITEMODE_A != "NORMAL")) latch_a <= read_a >> shift_a;
        if (RSTA) register_a <= 0;
        else if (OCEA) register_a <= latch_a;
    end
    wire [35:0] out_a = REGMODE_A == "OUTREG" ? register_a : latch_a;

    wire clock_b = CLKBMUX == "INV" ? ~CLKB : CLKB;
    reg [35:0] read_b, latch_b = 0, register_b = 0;
    integer b, a_of_b;
    always @(posedge clock_b) begin
        read_b = WEB && WRITEMODE_B == "WRITETHROUGH" ? new_b : old_b;
        for (b = 0; b < 4; b = b + 1) begin
            for (a_of_b = 0; a_of_b < 4; a_of_b = a_of_b + 1)
                if (|mask_a[9 * a_of_b +: 9] && first_b + b == first_a + a_of_b)
                    read_b[9 * b +: 9] = ~old_b[9 * b +: 9];
        end
        if (RSTB) latch_b <= 0;
        else if (enable_b && (!WEB || WRITEMODE_B != "NORMAL")) latch_b <= read_b >> shift_b;
        if (RSTB) register_b <= 0;
        else if (OCEB) register_b <= latch_b;
    end
    wire [35:0] out_b = REGMODE_B == "OUTREG" ? register_b : latch_b;

    assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5,
        DOA4, DOA3, DOA2, DOA1, DOA0} =
        DATA_WIDTH_B == 36 ? out_b[17:0] : out_a[17:0];
    assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5,
        DOB4, DOB3, DOB2, DOB1, DOB0} =
        DATA_WIDTH_B == 36 ? out_b[35:18] : out_b[17:0];
endmodule
