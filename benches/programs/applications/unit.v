module top(input clk, input [15:0] a, input [15:0] b, input [1:0] operation, output reg [15:0] r, output reg [31:0] p);
  reg [15:0] memory [0:15];
  wire [15:0] shifted = (a ^ b) << a[3:0];
  always @(posedge clk) begin
    p <= a * b + p;
    memory[a[3:0]] <= shifted - r;
    case (operation)
      0: r <= shifted + r;
      1: r <= memory[b[3:0]];
      2: r <= (a > b) ? a - b : b - a;
      default: r <= {r[14:0], ^(a & b)};
    endcase
  end
endmodule
